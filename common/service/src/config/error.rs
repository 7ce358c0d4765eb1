//! What can be wrong with settings. Every variant ends the program with exit code 2.

use std::fmt;

use serde::de;

use super::tree::Origin;

/// A setting that cannot be used, where it was written, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// `writer.linger_ms`, or empty where no single setting is at fault.
    pub(super) path: String,
    pub(super) origin: Option<Origin>,
    pub(super) message: String,
}

impl ConfigError {
    /// An error about no setting in particular.
    pub fn new(message: impl Into<String>) -> Self {
        Self { path: String::new(), origin: None, message: message.into() }
    }

    /// An error about one setting, `section.name`.
    pub fn at(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { path: path.into(), origin: None, message: message.into() }
    }

    /// Adds where the value was found, unless that is known already: the innermost place wins.
    pub(super) fn found(mut self, path: &str, origin: &Origin) -> Self {
        if self.path.is_empty() {
            path.clone_into(&mut self.path);
        }
        self.origin.get_or_insert_with(|| origin.clone());
        self
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Some(origin) => write!(f, "{}: {}", origin.name_of(&self.path), self.message),
            None if self.path.is_empty() => f.write_str(&self.message),
            None => write!(f, "{}: {}", self.path, self.message),
        }
    }
}

impl std::error::Error for ConfigError {}

impl de::Error for ConfigError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(message.to_string())
    }
}
