//! Google Cloud Storage.

use std::sync::Arc;

use object_store::StaticCredentialProvider;
use object_store::gcp::{GcpCredential, GoogleCloudStorageBuilder, GoogleConfigKey as Key};

use super::{client_options, denied, no_retries, unusable};
use crate::object::adapter::Store;
use crate::object::location::Cloud;
use crate::object::{OpenError, StoreSettings};

pub(super) fn build(cloud: &Cloud, settings: &StoreSettings) -> Result<Store, OpenError> {
    let mut builder = GoogleCloudStorageBuilder::new().with_client_options(client_options(cloud, settings));
    for (name, value) in settings.credentials.iter() {
        if let (true, Ok(key)) = (name.starts_with("GOOGLE_"), name.to_ascii_lowercase().parse()) {
            builder = builder.with_config(key, value);
        }
    }
    if let Some(endpoint) = &cloud.endpoint {
        builder = builder.with_config(Key::BaseUrl, endpoint);
    }
    let has = |key| builder.get_config_value(&key).is_some();
    let skips = builder.get_config_value(&Key::SkipSignature).is_some_and(|skip| skip == "true");
    let explicit =
        [Key::ServiceAccount, Key::ServiceAccountKey, Key::ApplicationCredentials, Key::BearerToken];
    if !settings.instance_credentials && !skips && !explicit.into_iter().any(has) {
        return Err(denied(cloud, "GOOGLE_APPLICATION_CREDENTIALS or GOOGLE_SERVICE_ACCOUNT"));
    }
    if skips {
        // Never used, and keeps the builder from looking for others.
        builder = builder.with_credentials(Arc::new(StaticCredentialProvider::new(GcpCredential {
            bearer: String::new(),
        })));
    }
    let store = builder
        .with_bucket_name(&cloud.bucket)
        .with_retry(no_retries())
        .build()
        .map_err(|e| unusable(cloud, &e))?;
    Ok(Store::new(store))
}
