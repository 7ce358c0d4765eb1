//! The merged layers: a tree of values, each with its origin.

use std::collections::BTreeMap;
use std::path::Path;

use serde::de::DeserializeOwned;

use super::de::NodeDe;
use super::error::ConfigError;
use super::nearest;

/// Every section a file may have. A program reads its own and the first four.
pub const SECTIONS: &[&str] =
    &["store", "coordination", "server", "log", "writer", "reader", "tailer", "compactor"];

/// What the environment's variables begin with.
const ENV_PREFIX: &str = "ISLE__";

/// Longest configuration file, in bytes; anything longer is not one.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// Where a value was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Origin {
    /// In this file.
    File(String),
    /// In the environment.
    Environment,
    /// On the command line, by this flag.
    Flag(String),
}

impl Origin {
    /// A setting as it is written there.
    pub(super) fn spell(&self, path: &str) -> String {
        match self {
            Self::File(_) => path.to_owned(),
            Self::Environment => env_name(path),
            Self::Flag(flag) => flag.clone(),
        }
    }

    /// The place and the setting as it is written there.
    pub(super) fn name_of(&self, path: &str) -> String {
        match self {
            Self::File(file) => format!("{file}: {path}"),
            Self::Environment => format!("environment: {}", env_name(path)),
            Self::Flag(flag) => flag.clone(),
        }
    }
}

/// `writer.linger_ms` as `ISLE__WRITER__LINGER_MS`.
fn env_name(path: &str) -> String {
    format!("{ENV_PREFIX}{}", path.replace('.', "__").to_uppercase())
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    pub(super) origin: Origin,
    pub(super) value: Value,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    /// From the environment or a flag: text that becomes whatever its setting is.
    Text(String),
    /// From the file: anything but a table or an array.
    Scalar(toml::Value),
    List(Vec<Node>),
    Table(BTreeMap<String, Node>),
}

/// File, environment and flags, merged.
#[derive(Debug, Clone, PartialEq)]
pub struct Layers {
    root: BTreeMap<String, Node>,
}

impl Layers {
    /// Nothing but defaults.
    #[must_use]
    pub fn empty() -> Self {
        Self { root: BTreeMap::new() }
    }

    /// Reads `file`, if one is named, and lays `environment` (all variables; others than `ISLE__…` are passed over) on top.
    pub fn read(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let mut layers = match file {
            Some(path) => Self::parse(&path.display().to_string(), &read_file(path)?)?,
            None => Self::empty(),
        };
        for (name, text) in environment {
            layers.set_env(&name, text)?;
        }
        Ok(layers)
    }

    /// Parses the text of a file called `name`.
    pub fn parse(name: &str, text: &str) -> Result<Self, ConfigError> {
        let table: toml::Table =
            text.parse().map_err(|e| ConfigError::new(format!("{name}: {}", first_lines(&e))))?;
        let origin = Origin::File(name.to_owned());
        let mut root = BTreeMap::new();
        for (section, value) in table {
            check_section(&section).map_err(|e| e.found(&section, &origin))?;
            let node = node_of(&origin, value);
            if !matches!(node.value, Value::Table(_)) {
                let message = format!("is a section: write [{section}] and its settings below");
                return Err(ConfigError::at(section, message).found("", &origin));
            }
            root.insert(section, node);
        }
        Ok(Self { root })
    }

    /// Lays the flag `--name value` on top, as setting `path`.
    pub fn set_flag(&mut self, flag: &str, path: &str, value: impl Into<String>) {
        let origin = Origin::Flag(flag.to_owned());
        insert(&mut self.root, path.split('.'), Node { origin, value: Value::Text(value.into()) });
    }

    fn set_env(&mut self, name: &str, text: String) -> Result<(), ConfigError> {
        let Some(rest) = name.strip_prefix(ENV_PREFIX) else { return Ok(()) };
        let path = rest.to_lowercase().replace("__", ".");
        let mut parts = path.split('.');
        let section = parts.next().unwrap_or_default();
        check_section(section).map_err(|e| e.found(section, &Origin::Environment))?;
        if parts.clone().count() == 0 || parts.any(str::is_empty) {
            return Err(ConfigError::new(format!(
                "environment: {name} is not of the form ISLE__<SECTION>__<NAME>"
            )));
        }
        insert(
            &mut self.root,
            path.split('.'),
            Node { origin: Origin::Environment, value: Value::Text(text) },
        );
        Ok(())
    }

    /// One section as `T`, which should be `#[serde(default, deny_unknown_fields)]`: what no layer sets is as its
    /// default has it.
    pub fn section<T: DeserializeOwned + Default>(&self, name: &str) -> Result<T, ConfigError> {
        match self.root.get(name) {
            None => Ok(T::default()),
            Some(node) => T::deserialize(NodeDe::new(node, name.to_owned())),
        }
    }
}

fn insert<'a>(
    table: &mut BTreeMap<String, Node>,
    mut path: impl Iterator<Item = &'a str> + Clone,
    node: Node,
) {
    let Some(name) = path.next() else { return };
    if path.clone().next().is_none() {
        table.insert(name.to_owned(), node);
        return;
    }
    let empty = || Node { origin: node.origin.clone(), value: Value::Table(BTreeMap::new()) };
    let inner = table.entry(name.to_owned()).or_insert_with(empty);
    if !matches!(inner.value, Value::Table(_)) {
        *inner = empty();
    }
    if let Value::Table(inner) = &mut inner.value {
        insert(inner, path, node);
    }
}

fn node_of(origin: &Origin, value: toml::Value) -> Node {
    let value = match value {
        toml::Value::Table(table) => {
            Value::Table(table.into_iter().map(|(k, v)| (k, node_of(origin, v))).collect())
        }
        toml::Value::Array(items) => Value::List(items.into_iter().map(|v| node_of(origin, v)).collect()),
        scalar => Value::Scalar(scalar),
    };
    Node { origin: origin.clone(), value }
}

fn check_section(name: &str) -> Result<(), ConfigError> {
    if SECTIONS.contains(&name) {
        return Ok(());
    }
    let hint = match nearest(name, SECTIONS.iter().copied()) {
        Some(near) => format!("did you mean {near}?"),
        None => format!("known are {}", SECTIONS.join(", ")),
    };
    Err(ConfigError::new(format!("unknown section; {hint}")))
}

fn read_file(path: &Path) -> Result<String, ConfigError> {
    let failed = |e: std::io::Error| ConfigError::new(format!("{}: cannot be read: {e}", path.display()));
    let size = std::fs::metadata(path).map_err(failed)?.len();
    if size > MAX_FILE_BYTES {
        let message =
            format!("{}: has {size} bytes; a configuration has at most {MAX_FILE_BYTES}", path.display());
        return Err(ConfigError::new(message));
    }
    std::fs::read_to_string(path).map_err(failed)
}

/// TOML's own message, with its picture of the place, without trailing space.
fn first_lines(error: &toml::de::Error) -> String {
    error.to_string().trim_end().to_owned()
}
