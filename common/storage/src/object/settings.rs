//! What a store can be told: plain data, checked together.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::credentials::Credentials;

/// The `store` section of the configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StoreSettings {
    /// The database's own prefix: `file:///path`, `s3://bucket/prefix`, `gs://…`, `az://…`, `memory://`.
    pub url: String,
    /// How long one operation is repeated through throttling, broken connections and 5xx answers before its error
    /// is handed on; zero means never repeated.
    pub retry_budget_seconds: u64,
    /// How long one attempt may stay without progress before it counts as broken. Uploads get time for their size
    /// on top.
    pub request_timeout_seconds: u64,
    /// Requests in flight at once, counted apart for reads and for writes, so that a cold start's reads never hold
    /// up a commit. More wait their turn.
    pub max_concurrent_requests: usize,
    /// Whether the machine's own cloud identity (the metadata address) may be asked for credentials.
    pub instance_credentials: bool,
    /// Price of a million puts, creates and lists, in US dollars; the provider's list price if not given.
    pub usd_per_million_writes: Option<f64>,
    /// Price of a million gets and heads, in US dollars; the provider's list price if not given.
    pub usd_per_million_reads: Option<f64>,
    /// Price of reading one GiB out of the store, in US dollars; nothing if not given (the same region).
    pub usd_per_gib_read: Option<f64>,
    /// The environment's variables for the store, filled in by a `main`; never part of a file.
    #[serde(skip)]
    pub credentials: Credentials,
}

impl Default for StoreSettings {
    fn default() -> Self {
        Self {
            url: String::new(),
            retry_budget_seconds: 60,
            request_timeout_seconds: 30,
            max_concurrent_requests: 64,
            instance_credentials: false,
            usd_per_million_writes: None,
            usd_per_million_reads: None,
            usd_per_gib_read: None,
            credentials: Credentials::default(),
        }
    }
}

impl StoreSettings {
    /// Checks the values together.
    ///
    /// # Errors
    /// One line for each setting that cannot be, with the reason.
    pub fn validate(&self) -> Result<(), Vec<String>> {
        let mut wrong = Vec::new();
        if self.request_timeout_seconds == 0 {
            wrong.push("store.request_timeout_seconds is 0: no request could ever finish".to_owned());
        }
        if !(1..=4096).contains(&self.max_concurrent_requests) {
            wrong.push(format!(
                "store.max_concurrent_requests is {}: it must lie between 1 and 4096",
                self.max_concurrent_requests
            ));
        }
        let prices = [
            ("usd_per_million_writes", self.usd_per_million_writes),
            ("usd_per_million_reads", self.usd_per_million_reads),
            ("usd_per_gib_read", self.usd_per_gib_read),
        ];
        for (name, price) in prices {
            if price.is_some_and(|p| !p.is_finite() || p < 0.0) {
                wrong.push(format!("store.{name} is not a price: it must be zero or more"));
            }
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    }

    pub(super) fn retry_budget(&self) -> Duration {
        Duration::from_secs(self.retry_budget_seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid_and_unknown_keys_are_refused() {
        assert_eq!(StoreSettings::default().validate(), Ok(()));
        assert_eq!(serde_json::from_str::<StoreSettings>("{}").unwrap(), StoreSettings::default());
        let unknown = serde_json::from_str::<StoreSettings>(r#"{"retry_bugdet_seconds": 3}"#).unwrap_err();
        assert!(unknown.to_string().contains("retry_bugdet_seconds"), "{unknown}");
    }

    #[test]
    fn every_impossible_value_is_named() {
        let settings = StoreSettings {
            request_timeout_seconds: 0,
            max_concurrent_requests: 0,
            usd_per_gib_read: Some(-1.0),
            ..StoreSettings::default()
        };
        let wrong = settings.validate().unwrap_err().join("\n");
        for name in ["request_timeout_seconds", "max_concurrent_requests", "usd_per_gib_read"] {
            assert!(wrong.contains(name), "{wrong}");
        }
    }

    #[test]
    fn secrets_never_reach_the_printed_configuration() {
        let credentials = [("AWS_SECRET_ACCESS_KEY", "hunter2")].into_iter().collect();
        let settings = StoreSettings { credentials, ..StoreSettings::default() };
        assert!(!serde_json::to_string(&settings).unwrap().contains("hunter2"));
        assert!(!format!("{settings:?}").contains("hunter2"));
    }
}
