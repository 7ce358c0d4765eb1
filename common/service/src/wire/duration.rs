//! Durations as people write them: `500ms`, `20s`, `1h 30m`, or whole seconds; and the time to live of a row.

use std::time::Duration;

/// Longest time to live: 1,000 years of 365.25 days. Any instant of this century plus it still has a four-digit year,
/// so that every expiry can be written in RFC 3339.
pub const MAX_TTL: Duration = Duration::from_secs(31_557_600_000);

/// Parses a duration: digits alone are whole seconds, otherwise numbers with units (`ms`, `s`, `m`, `h`, `d`, …).
pub fn parse(text: &str) -> Result<Duration, String> {
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if plain {
        return text.parse().map(Duration::from_secs).map_err(|_| format!("{text} seconds is too long"));
    }
    humantime::parse_duration(text)
        .map_err(|e| format!("{text:?} is not a duration such as 500ms or 20s: {e}"))
}

/// A duration exactly as [`parse`] reads it: `60d`, `1h 30m`, `1s 500ms`. No months and years: whoever wrote `60d` wants
/// to read that, and nobody knows how long a month is.
#[must_use]
pub fn format(duration: Duration) -> String {
    let (seconds, nanos) = (duration.as_secs(), duration.subsec_nanos());
    let parts = [
        (seconds / 86_400, "d"),
        (seconds / 3_600 % 24, "h"),
        (seconds / 60 % 60, "m"),
        (seconds % 60, "s"),
        (u64::from(nanos / 1_000_000), "ms"),
        (u64::from(nanos / 1_000 % 1_000), "us"),
        (u64::from(nanos % 1_000), "ns"),
    ];
    let parts: Vec<String> =
        parts.iter().filter(|(n, _)| *n > 0).map(|(n, unit)| format!("{n}{unit}")).collect();
    if parts.is_empty() { "0s".to_owned() } else { parts.join(" ") }
}

/// A row's time to live: above zero, at most [`MAX_TTL`]; or `"none"`: it never expires, whatever the database's default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ttl(i64);

impl Ttl {
    /// Never.
    pub const NEVER: Self = Self(i64::MAX);

    /// From `"30s"`, whole seconds, or `"none"`.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text == "none" {
            return Ok(Self::NEVER);
        }
        let duration = parse(text)?;
        Self::from_duration(duration)
    }

    /// From whole seconds.
    pub fn from_seconds(seconds: u64) -> Result<Self, String> {
        Self::from_duration(Duration::from_secs(seconds))
    }

    /// From microseconds, as frames carry it.
    pub fn from_micros(micros: i64) -> Result<Self, String> {
        let micros = u64::try_from(micros).map_err(|_| "a ttl must be above zero".to_owned())?;
        Self::from_duration(Duration::from_micros(micros))
    }

    /// From a duration; what is below a microsecond counts as one.
    pub fn from_duration(duration: Duration) -> Result<Self, String> {
        if duration.is_zero() {
            return Err("a ttl must be above zero".into());
        }
        if duration > MAX_TTL {
            return Err("a ttl must be at most 1,000 years".into());
        }
        Ok(Self(i64::try_from(duration.as_micros()).unwrap_or(i64::MAX).max(1)))
    }

    /// In microseconds; at least 1.
    #[must_use]
    pub fn micros(self) -> i64 {
        self.0
    }

    /// As a duration; [`Duration::MAX`] for never.
    #[must_use]
    pub fn duration(self) -> Duration {
        if self == Self::NEVER {
            return Duration::MAX;
        }
        Duration::from_micros(self.0.unsigned_abs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_and_units() {
        assert_eq!(parse("20"), Ok(Duration::from_secs(20)));
        assert_eq!(parse("20s"), Ok(Duration::from_secs(20)));
        assert_eq!(parse("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse("1h 30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(parse(&format(Duration::from_secs(5400))), Ok(Duration::from_secs(5400)));
        for (seconds, text) in
            [(60 * 86_400, "60d"), (365 * 86_400, "365d"), (90_061, "1d 1h 1m 1s"), (0, "0s")]
        {
            assert_eq!(format(Duration::from_secs(seconds)), text);
        }
        assert_eq!(format(Duration::from_micros(1_500_001)), "1s 500ms 1us");
        for bad in ["", "s", "-1", "-1s", "1 parsec", "99999999999999999999", "1e3"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn what_is_written_is_read_exactly(seconds in 0u64..40_000_000_000, nanos in 0u32..1_000_000_000) {
            let duration = Duration::new(seconds, nanos);
            assert_eq!(parse(&format(duration)), Ok(duration));
        }
    }

    /// A time to live of zero, or one that overflows the clock, would delete or keep what nobody asked for.
    #[test]
    fn a_ttl_is_above_zero_and_cannot_overflow() {
        assert_eq!(Ttl::parse("30s").map(Ttl::micros), Ok(30_000_000));
        assert_eq!(Ttl::from_seconds(30).map(Ttl::micros), Ok(30_000_000));
        assert_eq!(Ttl::parse("1ns").map(Ttl::micros), Ok(1));
        assert_eq!(Ttl::parse("none").map(Ttl::duration), Ok(Duration::MAX));
        for bad in ["0", "0s", "18446744073709551615", "584942417355 years", "2000000 years", "31557600001"] {
            assert!(Ttl::parse(bad).is_err(), "{bad}");
        }
        assert!(
            Ttl::from_micros(0).is_err()
                && Ttl::from_micros(-1).is_err()
                && Ttl::from_micros(i64::MAX).is_err()
        );
        assert!(Ttl::from_seconds(u64::MAX).is_err());
    }
}
