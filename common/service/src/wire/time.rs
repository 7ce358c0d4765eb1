//! Instants as RFC 3339 in UTC with microseconds, written without allocation: a scan writes one or two per row.

/// First instant that is written with a four-digit year: 0000-01-01T00:00:00Z.
const MIN_MICROS: i64 = -62_167_219_200_000_000;
/// Last one: 9999-12-31T23:59:59.999999Z.
const MAX_MICROS: i64 = 253_402_300_799_999_999;

const MICROS_PER_DAY: i64 = 86_400_000_000;

/// Length of every instant as it is written.
pub const RFC3339_LEN: usize = "2026-01-02T03:04:05.678901Z".len();

/// Appends microseconds since 1970 as `2026-01-02T03:04:05.678901Z`. What lies outside the years 0 to 9999, which RFC
/// 3339 cannot say, is written as the nearest instant within.
pub fn write_rfc3339(out: &mut Vec<u8>, micros: i64) {
    let micros = micros.clamp(MIN_MICROS, MAX_MICROS);
    let (year, month, day) = civil(micros.div_euclid(MICROS_PER_DAY));
    let in_day = micros.rem_euclid(MICROS_PER_DAY).unsigned_abs();
    let (seconds, fraction) = (in_day / 1_000_000, in_day % 1_000_000);
    let mut text = *b"0000-00-00T00:00:00.000000Z";
    digits(&mut text[0..4], year);
    digits(&mut text[5..7], month);
    digits(&mut text[8..10], day);
    digits(&mut text[11..13], seconds / 3600);
    digits(&mut text[14..16], seconds / 60 % 60);
    digits(&mut text[17..19], seconds % 60);
    digits(&mut text[20..26], fraction);
    out.extend_from_slice(&text);
}

/// The same as a string.
#[must_use]
pub fn rfc3339(micros: i64) -> String {
    let mut out = Vec::with_capacity(RFC3339_LEN);
    write_rfc3339(&mut out, micros);
    String::from_utf8(out).unwrap_or_default()
}

fn digits(out: &mut [u8], mut number: u64) {
    for digit in out.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

/// Year, month and day of a day number since 1970-01-01, in the proleptic Gregorian calendar. Years are counted from
/// March, so that the leap day is the last of its year, in eras of 400 years, which all have 146,097 days.
fn civil(day: i64) -> (u64, u64, u64) {
    const DAYS_BEFORE_1970: i64 = 719_468; // from 0000-03-01
    const DAYS_PER_ERA: i64 = 146_097;
    let day = day + DAYS_BEFORE_1970;
    let era = day.div_euclid(DAYS_PER_ERA);
    let of_era = day.rem_euclid(DAYS_PER_ERA);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day_of_month = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year.unsigned_abs(), month.unsigned_abs(), day_of_month.unsigned_abs())
}

/// Parses RFC 3339 with any offset into microseconds since 1970; digits beyond microseconds are cut off.
pub fn parse_rfc3339(text: &str) -> Result<i64, String> {
    text.parse::<jiff::Timestamp>()
        .map(jiff::Timestamp::as_microsecond)
        .map_err(|e| format!("{text:?} is not an RFC 3339 time such as 2026-01-02T03:04:05Z: {e}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_instants() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000000Z");
        assert_eq!(rfc3339(-1), "1969-12-31T23:59:59.999999Z");
        assert_eq!(rfc3339(951_782_400_000_000), "2000-02-29T00:00:00.000000Z");
        assert_eq!(rfc3339(i64::MAX), "9999-12-31T23:59:59.999999Z");
        assert_eq!(rfc3339(i64::MIN), "0000-01-01T00:00:00.000000Z");
        assert_eq!(parse_rfc3339("1970-01-01T01:00:00+01:00"), Ok(0));
        assert_eq!(parse_rfc3339("1970-01-01T00:00:00.0000019Z"), Ok(1));
        for bad in ["", "yesterday", "1970-01-01", "1970-01-01T00:00:00", "1970-13-01T00:00:00Z"] {
            assert!(parse_rfc3339(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_parses_back(micros in MIN_MICROS..253_402_207_200_000_000) {
            prop_assert_eq!(parse_rfc3339(&rfc3339(micros)).unwrap(), micros);
        }
    }
}
