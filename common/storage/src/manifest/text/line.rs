//! One line, taken apart: words, and fields `name=value`. Every word and field must be used, so that a misspelt one is
//! noticed.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;

use serde_json::Value as Json;

/// A non-negative number without sign or padding.
pub(super) fn number(text: &str) -> Option<u64> {
    let n: u64 = text.parse().ok()?;
    (n.to_string() == text).then_some(n)
}

#[derive(Debug)]
pub(super) struct Line<'a> {
    /// Words and fields not taken yet, in order.
    parts: Vec<&'a str>,
}

impl<'a> Line<'a> {
    pub(super) fn new(line: &'a str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = line;
        while !rest.is_empty() {
            let len = part_len(rest)?;
            if len == 0 {
                return Err("two spaces, or one at the end".to_owned());
            }
            parts.push(&rest[..len]);
            rest = &rest[len..];
            rest = match rest.strip_prefix(' ') {
                Some("") => return Err("two spaces, or one at the end".to_owned()),
                Some(more) => more,
                None => rest,
            };
        }
        Ok(Self { parts })
    }

    /// The next word.
    pub(super) fn word(&mut self, what: &str) -> Result<&'a str, String> {
        if self.parts.is_empty() {
            return Err(format!("{what} is missing"));
        }
        Ok(self.parts.remove(0))
    }

    /// The next word, as a value.
    pub(super) fn value<T>(&mut self, what: &str) -> Result<T, String>
    where
        T: FromStr,
        T::Err: Display,
    {
        let word = self.word(what)?;
        word.parse().map_err(|e| format!("{what} {word:?}: {e}"))
    }

    /// The next word, as a text.
    pub(super) fn text(&mut self, what: &str) -> Result<String, String> {
        json(what, self.word(what)?)
    }

    /// A field that need not be there.
    pub(super) fn find(&mut self, name: &str) -> Option<&'a str> {
        let is = |p: &&str| p.strip_prefix(name).is_some_and(|rest| rest.starts_with('='));
        let at = self.parts.iter().position(is)?;
        Some(&self.parts.remove(at)[name.len() + 1..])
    }

    /// A field that must be there.
    pub(super) fn need(&mut self, name: &str) -> Result<&'a str, String> {
        self.find(name).ok_or_else(|| format!("{name}= is missing"))
    }

    /// A field that must be there, as a value.
    pub(super) fn field<T>(&mut self, name: &str) -> Result<T, String>
    where
        T: FromStr,
        T::Err: Display,
    {
        let value = self.need(name)?;
        value.parse().map_err(|e| format!("{name}={value}: {e}"))
    }

    /// A field that need not be there, as a value.
    pub(super) fn optional<T>(&mut self, name: &str) -> Result<Option<T>, String>
    where
        T: FromStr,
        T::Err: Display,
    {
        let parse = |value: &str| value.parse().map_err(|e| format!("{name}={value}: {e}"));
        self.find(name).map(parse).transpose()
    }

    /// A field `name=<from>..<to>`.
    pub(super) fn range<T>(&mut self, name: &str) -> Result<(T, T), String>
    where
        T: FromStr,
        T::Err: Display,
    {
        let value = self.need(name)?;
        let (from, to) = value.split_once("..").ok_or_else(|| format!("{name}={value} is no range"))?;
        let parse = |v: &str| v.parse().map_err(|e| format!("{name}={value}: {e}"));
        Ok((parse(from)?, parse(to)?))
    }

    /// A checksum field.
    pub(super) fn crc(&mut self) -> Result<u32, String> {
        let value = self.need("crc")?;
        let digits = value.strip_prefix("0x").filter(|d| d.len() == 8);
        let parsed = digits.and_then(|d| u32::from_str_radix(d, 16).ok());
        parsed.ok_or_else(|| format!("crc={value} is not 0x and eight digits"))
    }

    /// A field that is a JSON value; the type's default where it is not there.
    pub(super) fn json<T: serde::de::DeserializeOwned + Default>(&mut self, name: &str) -> Result<T, String> {
        self.find(name).map_or_else(|| Ok(T::default()), |value| json(name, value))
    }

    /// What a newer version has added.
    pub(super) fn extra(&mut self) -> Result<BTreeMap<String, Json>, String> {
        self.json("extra")
    }

    /// A word that is there or is not.
    pub(super) fn flag(&mut self, name: &str) -> bool {
        let at = self.parts.iter().position(|p| *p == name);
        at.map(|at| self.parts.remove(at)).is_some()
    }

    /// Demands that everything was used.
    pub(super) fn end(self) -> Result<(), String> {
        match self.parts.first() {
            Some(part) => Err(format!("{part:?} is unknown here")),
            None => Ok(()),
        }
    }
}

pub(super) fn json<T: serde::de::DeserializeOwned>(what: &str, text: &str) -> Result<T, String> {
    serde_json::from_str(text).map_err(|e| format!("{what} {text}: {e}"))
}

/// Length of the first word or field: to the next space that is not inside a JSON string, array or object.
fn part_len(text: &str) -> Result<usize, String> {
    let (mut in_string, mut escaped, mut depth) = (false, false, 0usize);
    for (at, b) in text.bytes().enumerate() {
        match b {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            b' ' if depth == 0 => return Ok(at),
            _ => {}
        }
    }
    if in_string || depth > 0 { Err("a text or a list does not end".to_owned()) } else { Ok(text.len()) }
}
