//! Durations and rates as people write them.
//!
//! Invariant: what is read is exact; nothing is rounded or clamped in silence.

use std::time::Duration;

use super::words::Word;
use crate::policy::limit::{Period, Rate};

/// No wait of ours is longer than a month; what is written as longer is a slip.
const LONGEST: Duration = Duration::from_secs(31 * 24 * 3600);

/// Reads `250ms`, `5s`, `1m`, `2h`, `1d`, or several of them in falling order (`1m30s`). Never zero.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let mut total = Duration::ZERO;
    let mut last = u64::MAX;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, tail) = rest.split_at_checked(digits)?;
        let letters = tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at_checked(letters)?;
        let millis: u64 = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" | "min" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return None,
        };
        if millis >= last {
            return None;
        }
        last = millis;
        let part = Duration::from_millis(number.parse::<u64>().ok()?.checked_mul(millis)?);
        total = total.checked_add(part)?;
        rest = tail;
    }
    if total.is_zero() || total > LONGEST { None } else { Some(total) }
}

/// Writes a duration so that [`duration`] reads the same.
pub(super) fn write_duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    for (unit, size) in [("h", 3_600_000), ("m", 60_000), ("s", 1000)] {
        // 600s is written as such, and 300s: people compare timeouts in seconds up to an hour.
        let whole = millis.is_multiple_of(size) && millis >= size;
        if whole && (unit == "s" || duration >= Duration::from_secs(3600) || (unit == "m" && millis == 60_000)) {
            return format!("{}{unit}", millis / size);
        }
    }
    format!("{millis}ms")
}

/// Reads `60/min`, `2M/day`, `10k/h`. Never zero.
pub(super) fn rate(text: &str) -> Option<Rate> {
    let (count, per) = text.split_once('/')?;
    Some(Rate { count: count_with_suffix(count.trim())?, per: Period::read(per.trim())? })
}

fn count_with_suffix(text: &str) -> Option<u64> {
    let (number, factor) = match text.strip_suffix(['k', 'K']) {
        Some(number) => (number, 1000),
        None => match text.strip_suffix('M') {
            Some(number) => (number, 1_000_000),
            None => (text, 1),
        },
    };
    if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    number.parse::<u64>().ok()?.checked_mul(factor).filter(|count| *count > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_durations() {
        for (text, millis) in [
            ("250ms", 250),
            ("5s", 5000),
            ("600s", 600_000),
            ("1m", 60_000),
            ("5min", 300_000),
            ("1h", 3_600_000),
            ("1d", 86_400_000),
            ("1m30s", 90_000),
            ("1h5s", 3_605_000),
        ] {
            let read = duration(text).unwrap_or_else(|| panic!("{text}"));
            assert_eq!(read, Duration::from_millis(millis), "{text}");
            assert_eq!(duration(&write_duration(read)), Some(read), "{text}");
        }
        for bad in ["", "5", "s", "soon", "-5s", "1.5s", "5 s", "0s", "30s1m", "1s1s", "99999999999999999999s", "60d"] {
            assert_eq!(duration(bad), None, "{bad}");
        }
    }

    #[test]
    fn writes_the_durations_of_the_defaults_as_they_are_written() {
        for text in ["5s", "600s", "300s", "1m", "25ms", "5h"] {
            assert_eq!(write_duration(duration(text).unwrap()), text);
        }
    }

    #[test]
    fn reads_rates() {
        for (text, count, per) in [
            ("60/min", 60, Period::Minute),
            ("2M/day", 2_000_000, Period::Day),
            ("10k/h", 10_000, Period::Hour),
            ("5/s", 5, Period::Second),
        ] {
            assert_eq!(rate(text), Some(Rate { count, per }), "{text}");
            assert_eq!(Rate { count, per }.to_string(), text);
        }
        for bad in ["", "60", "/min", "0/min", "60/week", "-1/min", "1.5/min", "99999999999999999M/day", "k/min"] {
            assert_eq!(rate(bad), None, "{bad}");
        }
    }
}
