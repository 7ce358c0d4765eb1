//! From the merged tree to a plain struct, by serde, with three things no general deserializer does: an unknown key is
//! answered with the nearest known one, every error names where its value was written, and text from the environment or a
//! flag becomes the number, switch or list its setting is.

use serde::Deserializer;
use serde::de::value::StrDeserializer;
use serde::de::{DeserializeSeed, Error as _, IntoDeserializer, MapAccess, SeqAccess, Visitor};

use super::error::ConfigError;
use super::nearest;
use super::tree::{Node, Value};

pub(super) struct NodeDe<'a> {
    node: &'a Node,
    path: String,
}

impl<'a> NodeDe<'a> {
    pub(super) fn new(node: &'a Node, path: String) -> Self {
        Self { node, path }
    }

    fn wrong(&self, expected: &str) -> ConfigError {
        let found = match &self.node.value {
            Value::Text(text) => format!("{text:?}"),
            Value::Scalar(value) => format!("{value} ({})", value.type_str()),
            Value::List(_) => "a list".to_owned(),
            Value::Table(_) => "a table".to_owned(),
        };
        ConfigError::new(format!("expected {expected}, found {found}")).found(&self.path, &self.node.origin)
    }

    /// Runs `visit` and adds this place to an error that has none.
    fn placed<T>(self, visit: impl FnOnce(&Self) -> Result<T, ConfigError>) -> Result<T, ConfigError> {
        visit(&self).map_err(|e| e.found(&self.path, &self.node.origin))
    }

    fn check_fields(&self, fields: &'static [&'static str]) -> Result<(), ConfigError> {
        let Value::Table(table) = &self.node.value else { return Err(self.wrong("a table of settings")) };
        for (name, node) in table {
            if fields.contains(&name.as_str()) {
                continue;
            }
            let path = format!("{}.{name}", self.path);
            let hint = match nearest(name, fields.iter().copied()) {
                Some(near) => {
                    format!("did you mean {}?", node.origin.spell(&format!("{}.{near}", self.path)))
                }
                None if fields.is_empty() => "there are no settings here".to_owned(),
                None => format!("known are {}", fields.join(", ")),
            };
            return Err(ConfigError::new(format!("unknown setting; {hint}")).found(&path, &node.origin));
        }
        Ok(())
    }
}

macro_rules! number {
    ($($method:ident $visit:ident $type:ty, $what:literal;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConfigError> {
            match &self.node.value {
                Value::Text(text) => {
                    let parsed: $type = text.trim().parse().map_err(|_| self.wrong($what))?;
                    self.placed(|_| visitor.$visit(parsed))
                }
                _ => self.deserialize_any(visitor),
            }
        }
    )*};
}

impl<'de> Deserializer<'de> for NodeDe<'_> {
    type Error = ConfigError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConfigError> {
        self.placed(|de| match &de.node.value {
            Value::Text(text) => visitor.visit_str(text),
            Value::Scalar(toml::Value::String(text)) => visitor.visit_str(text),
            Value::Scalar(toml::Value::Integer(number)) => visitor.visit_i64(*number),
            Value::Scalar(toml::Value::Float(number)) => visitor.visit_f64(*number),
            Value::Scalar(toml::Value::Boolean(flag)) => visitor.visit_bool(*flag),
            Value::Scalar(other) => visitor.visit_string(other.to_string()),
            Value::List(items) => visitor.visit_seq(Items { items: items.iter(), path: &de.path }),
            Value::Table(table) => {
                visitor.visit_map(Entries { entries: table.iter(), value: None, path: &de.path })
            }
        })
    }

    number! {
        deserialize_i8 visit_i8 i8, "a whole number";
        deserialize_i16 visit_i16 i16, "a whole number";
        deserialize_i32 visit_i32 i32, "a whole number";
        deserialize_i64 visit_i64 i64, "a whole number";
        deserialize_u8 visit_u8 u8, "a whole number";
        deserialize_u16 visit_u16 u16, "a whole number";
        deserialize_u32 visit_u32 u32, "a whole number";
        deserialize_u64 visit_u64 u64, "a whole number";
        deserialize_f32 visit_f32 f32, "a number";
        deserialize_f64 visit_f64 f64, "a number";
        deserialize_bool visit_bool bool, "true or false";
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConfigError> {
        match &self.node.value {
            // `ISLE__…=` takes a setting back.
            Value::Text(text) if text.is_empty() => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, ConfigError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConfigError> {
        match &self.node.value {
            Value::Text(text) => {
                let items: Vec<Node> = listed(text)
                    .map(|t| Node { origin: self.node.origin.clone(), value: Value::Text(t.to_owned()) })
                    .collect();
                self.placed(|de| visitor.visit_seq(Items { items: items.iter(), path: &de.path }))
            }
            Value::List(_) => self.deserialize_any(visitor),
            _ => Err(self.wrong("a list")),
        }
    }

    /// A list of a known length; a longer one is not cut off in silence.
    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, ConfigError> {
        let found = match &self.node.value {
            Value::Text(text) => listed(text).count(),
            Value::List(items) => items.len(),
            _ => 0,
        };
        if found != len {
            return Err(self.wrong(&format!("a list of {len}")));
        }
        self.deserialize_seq(visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ConfigError> {
        self.check_fields(fields)?;
        self.deserialize_any(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ConfigError> {
        self.placed(|de| match &de.node.value {
            Value::Text(text) | Value::Scalar(toml::Value::String(text)) => {
                let name: StrDeserializer<'_, ConfigError> = text.as_str().into_deserializer();
                visitor.visit_enum(name)
            }
            _ => Err(de.wrong("one of a few words")),
        })
    }

    serde::forward_to_deserialize_any! {
        i128 u128 char str string bytes byte_buf unit unit_struct tuple_struct map identifier ignored_any
    }
}

/// The items of a list that is written as text.
fn listed(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|t| !t.is_empty())
}

struct Items<'a> {
    items: std::slice::Iter<'a, Node>,
    path: &'a str,
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = ConfigError;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, ConfigError> {
        self.items.next().map(|node| seed.deserialize(NodeDe::new(node, self.path.to_owned()))).transpose()
    }
}

struct Entries<'a> {
    entries: std::collections::btree_map::Iter<'a, String, Node>,
    value: Option<(&'a str, &'a Node)>,
    path: &'a str,
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = ConfigError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, ConfigError> {
        let Some((name, node)) = self.entries.next() else { return Ok(None) };
        self.value = Some((name, node));
        let name: StrDeserializer<'_, ConfigError> = name.as_str().into_deserializer();
        seed.deserialize(name).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, ConfigError> {
        let (name, node) =
            self.value.take().ok_or_else(|| ConfigError::custom("a value without its name"))?;
        let path = format!("{}.{name}", self.path);
        seed.deserialize(NodeDe::new(node, path.clone())).map_err(|e| e.found(&path, &node.origin))
    }
}
