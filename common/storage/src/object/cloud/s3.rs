//! Amazon S3 and the stores that speak like it.

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey as Key, S3ConditionalPut};

use super::{client_options, denied, no_retries, unusable};
use crate::object::adapter::Store;
use crate::object::location::Cloud;
use crate::object::{OpenError, StoreSettings};

pub(super) fn build(cloud: &Cloud, settings: &StoreSettings) -> Result<Store, OpenError> {
    let mut builder = AmazonS3Builder::new().with_client_options(client_options(cloud, settings));
    for (name, value) in settings.credentials.iter() {
        // Variables for other programs (AWS_PROFILE, AWS_PAGER, …) are nobody's mistake.
        if let (true, Ok(key)) = (name.starts_with("AWS_"), name.to_ascii_lowercase().parse()) {
            builder = builder.with_config(key, value);
        }
    }
    if let Some(region) = &cloud.region {
        builder = builder.with_region(region);
    }
    if let Some(endpoint) = &cloud.endpoint {
        builder = builder.with_config(Key::S3Endpoint, endpoint);
    }
    if cloud.allow_http {
        builder = builder.with_allow_http(true);
    }
    if !settings.instance_credentials && !has_credentials(&builder) {
        return Err(denied(cloud, "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"));
    }
    let store = builder
        .with_bucket_name(&cloud.bucket)
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        .with_disable_bulk_delete(true)
        .with_retry(no_retries())
        .build()
        .map_err(|e| unusable(cloud, &e))?;
    Ok(Store::new(store))
}

/// Whether the client will take credentials from what it was given, in the order it looks.
fn has_credentials(builder: &AmazonS3Builder) -> bool {
    let has = |key| builder.get_config_value(&key).is_some();
    has(Key::AccessKeyId)
        || has(Key::SecretAccessKey)
        || (has(Key::WebIdentityTokenFile) && has(Key::RoleArn))
        || has(Key::ContainerCredentialsRelativeUri)
        || (has(Key::ContainerCredentialsFullUri) && has(Key::ContainerAuthorizationTokenFile))
        || builder.get_config_value(&Key::SkipSignature).is_some_and(|skip| skip == "true")
}
