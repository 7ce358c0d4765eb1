//! The store's secrets, given explicitly: a library reads no environment, so a `main` hands the variables in.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;

/// Which environment variables may speak to a store at all.
const PREFIXES: [&str; 3] = ["AWS_", "GOOGLE_", "AZURE_"];

/// The usual `AWS_…`, `GOOGLE_…` and `AZURE_…` variables, by name. Its `Debug` shows names, never values.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credentials(BTreeMap<String, String>);

impl Credentials {
    /// Keeps the store's variables out of a whole environment. A `main` writes
    /// `Credentials::from_vars(std::env::vars_os())`.
    pub fn from_vars(vars: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        let text =
            |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value.into_string().ok()?));
        vars.into_iter().filter_map(text).collect()
    }

    /// Whether nothing at all was given.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value of a variable; an empty one counts as absent, as shells make it hard to tell the two apart.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Every variable with a value, names in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().filter(|(_, v)| !v.is_empty()).map(|(k, v)| (k.as_str(), v.as_str()))
    }
}

impl<K: Into<String>, V: Into<String>> FromIterator<(K, V)> for Credentials {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(vars: I) -> Self {
        let known = |name: &String| PREFIXES.iter().any(|p| name.starts_with(p));
        Self(vars.into_iter().map(|(k, v)| (k.into(), v.into())).filter(|(k, _)| known(k)).collect())
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_stores_variables_are_kept_and_no_value_is_ever_printed() {
        let all = [("AWS_SECRET_ACCESS_KEY", "hunter2"), ("HOME", "/root"), ("AZURE_STORAGE_SAS_KEY", "")];
        let kept = Credentials::from_vars(all.map(|(k, v)| (k.into(), v.into())));
        assert_eq!(kept.get("AWS_SECRET_ACCESS_KEY"), Some("hunter2"));
        assert_eq!(kept.get("HOME"), None);
        assert_eq!(kept.get("AZURE_STORAGE_SAS_KEY"), None, "an empty variable is none");
        assert!(!format!("{kept:?}").contains("hunter2"));
    }
}
