//! Positions and tokens as they travel: only `[A-Za-z0-9._-]`.

use std::fmt;
use std::str::FromStr;

use crate::error::ApiError;

/// Longest cursor, page token or position a request may carry. A page token holds a key, so it is as long as the
/// longest key in base64 and a little more.
pub const MAX_TOKEN_BYTES: usize = 128 * 1024;

/// Where a mutation stands: the epoch that accepted it and its sequence number, written `<epoch>.<seq>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The writer's epoch.
    pub epoch: u64,
    /// The mutation's sequence number.
    pub seq: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.seq)
    }
}

impl FromStr for Position {
    type Err = ApiError;

    fn from_str(text: &str) -> Result<Self, ApiError> {
        let parts = text.split_once('.').and_then(|(epoch, seq)| Some((number(epoch)?, number(seq)?)));
        let (epoch, seq) = parts.ok_or_else(|| {
            ApiError::invalid(format!("{text:?} is not a position, which is written <epoch>.<seq>"))
        })?;
        Ok(Self { epoch, seq })
    }
}

/// What a read must at least contain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MinSeq {
    /// Everything up to this sequence number, whoever wrote it.
    Seq(u64),
    /// Everything up to this position, and that very mutation.
    Position(Position),
}

impl MinSeq {
    /// The sequence number the view must reach.
    #[must_use]
    pub fn seq(self) -> u64 {
        match self {
            Self::Seq(seq) | Self::Position(Position { seq, .. }) => seq,
        }
    }
}

impl FromStr for MinSeq {
    type Err = ApiError;

    fn from_str(text: &str) -> Result<Self, ApiError> {
        if text.contains('.') {
            return text.parse().map(Self::Position);
        }
        number(text).map(Self::Seq).ok_or_else(|| {
            ApiError::invalid(format!("{text:?} is neither a sequence number nor a position <epoch>.<seq>"))
        })
    }
}

fn number(text: &str) -> Option<u64> {
    // `parse` alone would take a leading plus sign.
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?
}

/// Refuses a token with a byte that no cursor, page token or position holds, before anything tries to read it.
pub fn check_token<'a>(what: &str, token: &'a str) -> Result<&'a str, ApiError> {
    if token.is_empty() {
        return Err(ApiError::invalid(format!("{what} is empty")));
    }
    if token.len() > MAX_TOKEN_BYTES {
        return Err(ApiError::invalid(format!("{what} is longer than {MAX_TOKEN_BYTES} bytes")));
    }
    match token.bytes().find(|b| !(b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))) {
        None => Ok(token),
        Some(bad) => Err(ApiError::invalid(format!(
            "{what} holds {:?}; it uses letters, digits and ._- only and is passed on as it was received",
            char::from(bad)
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_print_and_parse() {
        let position = Position { epoch: 3, seq: 17 };
        assert_eq!(position.to_string(), "3.17");
        assert_eq!("3.17".parse::<Position>().unwrap(), position);
        assert_eq!("3.17".parse::<MinSeq>().unwrap(), MinSeq::Position(position));
        assert_eq!("17".parse::<MinSeq>().unwrap(), MinSeq::Seq(17));
        assert_eq!("18446744073709551615".parse::<MinSeq>().unwrap().seq(), u64::MAX);
        for bad in ["", ".", "1.", ".1", "1.2.3", "+1", "-1", "1.+2", "x", "18446744073709551616"] {
            assert!(bad.parse::<MinSeq>().is_err(), "{bad}");
        }
    }

    #[test]
    fn tokens_hold_only_their_alphabet() {
        assert!(check_token("page", "aZ0._-").is_ok());
        for bad in ["", "a b", "a/b", "a+b", "a=", "ä", "a\0"] {
            assert!(check_token("page", bad).is_err(), "{bad}");
        }
        assert!(check_token("page", &"a".repeat(MAX_TOKEN_BYTES + 1)).is_err());
    }
}
