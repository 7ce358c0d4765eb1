//! Azure Blob Storage.

use object_store::azure::{AzureConfigKey as Key, MicrosoftAzureBuilder};

use super::{client_options, denied, no_retries, unusable};
use crate::object::adapter::Store;
use crate::object::location::Cloud;
use crate::object::{OpenError, StoreSettings};

pub(super) fn build(cloud: &Cloud, settings: &StoreSettings) -> Result<Store, OpenError> {
    let mut builder = MicrosoftAzureBuilder::new().with_client_options(client_options(cloud, settings));
    for (name, value) in settings.credentials.iter() {
        match name.to_ascii_lowercase().parse() {
            // The emulator's switch makes the client read the environment; an endpoint in the URL does the same.
            Ok(Key::UseEmulator) => {}
            Ok(key) if name.starts_with("AZURE_") => builder = builder.with_config(key, value),
            _ => {}
        }
    }
    if let Some(account) = &cloud.account {
        builder = builder.with_account(account);
    }
    if let Some(endpoint) = &cloud.endpoint {
        builder = builder.with_endpoint(endpoint.clone());
    }
    if cloud.allow_http {
        builder = builder.with_allow_http(true);
    }
    if !settings.instance_credentials && !has_credentials(&builder) {
        return Err(denied(cloud, "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY"));
    }
    let store = builder
        .with_container_name(&cloud.bucket)
        .with_retry(no_retries())
        .build()
        .map_err(|e| unusable(cloud, &e))?;
    Ok(Store::new(store))
}

/// Whether the client will take credentials from what it was given, in the order it looks.
fn has_credentials(builder: &MicrosoftAzureBuilder) -> bool {
    let has = |key| builder.get_config_value(&key).is_some();
    let says = |key| builder.get_config_value(&key).is_some_and(|value| value == "true");
    let client = has(Key::ClientId) && has(Key::AuthorityId);
    has(Key::Token)
        || has(Key::AccessKey)
        || has(Key::SasKey)
        || (client && (has(Key::FederatedTokenFile) || has(Key::ClientSecret)))
        || says(Key::UseAzureCli)
        || says(Key::SkipSignature)
}
