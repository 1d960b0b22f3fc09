//! The forms in which upstreams say when a limit ends.
//!
//! A form is declared with the field that uses it and never guessed from the size of a number: 1777777777 is a
//! moment in one field and 56 years in another.
//!
//! Invariant: total on arbitrary bytes; never a moment before `now`, never NaN, never beyond [`FARTHEST`].

use std::time::Duration;

use http::{HeaderMap, HeaderName};
use regex::Regex;
use serde::Deserialize;
use time::format_description::well_known::{Rfc2822, Rfc3339};
use time::macros::format_description;
use time::{OffsetDateTime, PrimitiveDateTime, UtcOffset};

use super::json::{self, Pointer};
use super::rules::Sight;
use super::{Reset, Said};
use crate::clock::WallTime;

/// Longest wait that is believed at all; each lane of the pool has its own, shorter cap. Monthly limits are real.
pub(super) const FARTHEST: Duration = Duration::from_secs(32 * 86_400);

/// What "0 seconds" is taken for: the upstream has just refused, so at once is never right.
const LEAST: Duration = Duration::from_secs(1);

/// The declared form of one value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// Seconds from now, with or without a fraction.
    Seconds,
    /// `Retry-After` of RFC 9110 section 10.2.3: seconds or an HTTP date. Fractions are tolerated.
    SecondsOrDate,
    /// Milliseconds from now.
    Millis,
    /// `6m0s`, `2m59.56s`, `12ms`, `1h2m3.5s`; a bare number is seconds.
    GoDuration,
    /// `34s`, `0.5s` as protobuf's JSON form writes a duration.
    ProtoDuration,
    /// `2026-08-22T10:00:00Z`.
    Rfc3339,
    /// Seconds since 1970, with or without a fraction.
    Epoch,
    /// Milliseconds since 1970.
    EpochMillis,
    /// `2026-09-01 at 00:00`, in UTC.
    DateAtTime,
    /// `2026-10-02 18:30:00`, in UTC.
    DateTime,
    /// `2026-10-02 18:30:00`, eight hours ahead of UTC.
    DateTimeShanghai,
}

impl Format {
    /// Every form with its name in the rules.
    pub const NAMED: &'static [(&'static str, Self)] = &[
        ("seconds", Self::Seconds),
        ("seconds-or-date", Self::SecondsOrDate),
        ("millis", Self::Millis),
        ("go-duration", Self::GoDuration),
        ("proto-duration", Self::ProtoDuration),
        ("rfc3339", Self::Rfc3339),
        ("epoch", Self::Epoch),
        ("epoch-millis", Self::EpochMillis),
        ("date-at-time", Self::DateAtTime),
        ("date-time", Self::DateTime),
        ("date-time-shanghai", Self::DateTimeShanghai),
    ];

    /// Whether it names a moment, not a delay.
    pub(super) fn is_moment(self) -> bool {
        match self {
            Self::Seconds | Self::SecondsOrDate | Self::Millis | Self::GoDuration | Self::ProtoDuration => false,
            Self::Rfc3339 | Self::Epoch | Self::EpochMillis => true,
            Self::DateAtTime | Self::DateTime | Self::DateTimeShanghai => true,
        }
    }

    /// The moment that `text` names. `None` for what is no such form, negative, absurd or over already.
    #[must_use]
    pub fn read(self, text: &[u8], now: WallTime) -> Option<WallTime> {
        let text = std::str::from_utf8(text).ok()?.trim();
        // No form is longer than an HTTP date; a cap keeps a hostile field from costing anything.
        if text.is_empty() || text.len() > 64 {
            return None;
        }
        match self {
            Self::Seconds => ahead(number(text)?, now),
            Self::SecondsOrDate => match number(text) {
                Some(seconds) => ahead(seconds, now),
                None => moment(http_date(text)?, now),
            },
            Self::Millis => ahead(number(text)? / 1000.0, now),
            Self::GoDuration => ahead(number(text).or_else(|| go_duration(text))?, now),
            Self::ProtoDuration => ahead(number(text.strip_suffix('s')?)?, now),
            Self::Rfc3339 => moment(OffsetDateTime::parse(text, &Rfc3339).ok()?, now),
            Self::Epoch => since_epoch(number(text)?, now),
            Self::EpochMillis => since_epoch(number(text)? / 1000.0, now),
            Self::DateAtTime => {
                let form = format_description!("[year]-[month]-[day] at [hour]:[minute]");
                moment(PrimitiveDateTime::parse(text, form).ok()?.assume_utc(), now)
            }
            Self::DateTime => moment(date_time(text)?.assume_utc(), now),
            Self::DateTimeShanghai => {
                let zone = UtcOffset::from_hms(8, 0, 0).ok()?;
                moment(date_time(text)?.assume_offset(zone), now)
            }
        }
    }
}

/// One place where an end is said.
#[derive(Debug, Clone)]
pub struct ResetSource {
    pub(super) place: Place,
    pub(super) form: Format,
}

#[derive(Debug, Clone)]
pub(super) enum Place {
    Field(HeaderName),
    Body(Pointer),
    Text(Regex),
    Spent(String),
    Rejected(String, Vec<String>),
    Midnight(u8),
}

impl ResetSource {
    /// How far from exact: a structured answer, milliseconds, other fields, sentences and full refills, the calendar.
    pub(super) fn distance(&self) -> u8 {
        match &self.place {
            Place::Body(_) | Place::Rejected(..) => 0,
            Place::Field(_) if self.form == Format::Millis => 1,
            Place::Field(_) => 2,
            Place::Text(_) | Place::Spent(_) => 3,
            Place::Midnight(_) => 4,
        }
    }

    /// The end that stands there.
    pub(super) fn find(&self, seen: &Sight<'_>, now: WallTime) -> Option<Reset> {
        let said = if self.form.is_moment() { Said::Moment } else { Said::Delay };
        let exactly = |at| Reset { at, said };
        let loosely = |at| Reset { at, said: Said::Loosely };
        match &self.place {
            // A field that is there twice says the longer of both.
            Place::Field(name) => {
                let all = seen.fields.get_all(name).iter();
                all.filter_map(|value| self.form.read(value.as_bytes(), now)).max().map(exactly)
            }
            Place::Body(at) => {
                let found = at.values(seen.json()?).into_iter().filter_map(json::text);
                found.filter_map(|text| self.form.read(text.as_bytes(), now)).max().map(exactly)
            }
            Place::Text(regex) => {
                let found = regex.captures(seen.text())?.get(1)?;
                self.form.read(found.as_str().as_bytes(), now).map(loosely)
            }
            Place::Spent(prefix) => dimensions(prefix, seen.fields)
                .filter(|(_, remaining)| *remaining <= 0.0)
                .filter_map(|(name, _)| reset_of(&name, self.form, seen.fields, now))
                .max()
                .map(exactly),
            Place::Rejected(prefix, windows) => {
                let rejected = windows.iter().filter(|window| {
                    let status = seen.fields.get(format!("{prefix}{window}-status"));
                    status.is_some_and(|value| value.as_bytes() == b"rejected")
                });
                let ends = rejected.filter_map(|window| {
                    let value = seen.fields.get(format!("{prefix}{window}-reset"))?;
                    self.form.read(value.as_bytes(), now)
                });
                ends.max().map(exactly)
            }
            Place::Midnight(behind) => Some(loosely(next_midnight(*behind, now))),
        }
    }
}

/// Until when the window that is nearest to its end is nearly spent, as the fields of any answer say it.
pub(super) fn nearly_spent(prefix: &str, form: Format, fields: &HeaderMap, now: WallTime) -> Option<WallTime> {
    let empty = dimensions(prefix, fields).filter(|(_, remaining)| *remaining <= 0.0);
    let empty = empty.filter_map(|(name, _)| reset_of(&name, form, fields, now));
    // Subscriptions say how much of a window is used; 0.98 leaves room for the requests that are under way.
    let used = fields.iter().filter_map(|(name, value)| {
        let window = name.as_str().strip_prefix(prefix)?.strip_suffix("-utilization")?;
        let used = number(value.to_str().ok()?.trim())?;
        let end = fields.get(format!("{prefix}{window}-reset"))?;
        (used >= 0.98).then(|| Format::Epoch.read(end.as_bytes(), now))?
    });
    empty.chain(used).max()
}

/// How much of each kind remains, as the fields of any answer say it: counts, and of a subscription's windows the part
/// that is not used.
pub(super) fn remaining(prefix: &str, fields: &HeaderMap) -> Vec<(&'static str, f64)> {
    let counts = dimensions(prefix, fields).filter_map(|(name, left)| {
        let kind = match name.strip_prefix(prefix)?.replace("remaining", "").trim_matches('-') {
            "" | "requests" => "requests",
            "tokens" => "tokens",
            "input-tokens" => "input_tokens",
            "output-tokens" => "output_tokens",
            _ => return None,
        };
        Some((kind, left))
    });
    let windows = fields.iter().filter_map(|(name, value)| {
        let kind = match name.as_str().strip_prefix(prefix)?.strip_suffix("-utilization")? {
            "unified-5h" => "window_5h",
            "unified-7d" => "window_7d",
            _ => return None,
        };
        Some((kind, (1.0 - number(value.to_str().ok()?.trim())?).max(0.0)))
    });
    counts.chain(windows).collect()
}

/// The fields under `prefix` that say how much of a dimension remains.
fn dimensions<'a>(prefix: &'a str, fields: &'a HeaderMap) -> impl Iterator<Item = (String, f64)> + 'a {
    fields.iter().filter_map(move |(name, value)| {
        let rest = name.as_str().strip_prefix(prefix)?;
        let named = rest == "remaining" || rest.starts_with("remaining-") || rest.ends_with("-remaining");
        let remaining = value.to_str().ok()?.trim().parse::<f64>().ok().filter(|value| value.is_finite())?;
        named.then(|| (name.as_str().to_owned(), remaining))
    })
}

fn reset_of(remaining: &str, form: Format, fields: &HeaderMap, now: WallTime) -> Option<WallTime> {
    let at = remaining.rfind("remaining")?;
    let name = format!("{}reset{}", remaining.get(..at)?, remaining.get(at..)?.strip_prefix("remaining")?);
    form.read(fields.get(name)?.as_bytes(), now)
}

/// The next midnight of a zone that is `hours_behind` UTC.
pub(super) fn next_midnight(hours_behind: u8, now: WallTime) -> WallTime {
    const DAY: u64 = 86_400_000;
    let behind = u64::from(hours_behind.min(23)) * 3_600_000;
    let local = now.0.saturating_sub(behind);
    let midnight = (local / DAY).saturating_add(1).saturating_mul(DAY);
    WallTime(midnight.saturating_add(behind))
}

/// A plain decimal number: digits and at most one point. No sign, exponent, infinity or NaN.
fn number(text: &str) -> Option<f64> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    if !plain || !text.bytes().any(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse::<f64>().ok().filter(|value| value.is_finite())
}

fn go_duration(text: &str) -> Option<f64> {
    let mut rest = text;
    let mut total = 0.0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (digits, after) = rest.split_at_checked(end)?;
        let end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at_checked(end)?;
        let scale = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        total += number(digits)? * scale;
        rest = after;
    }
    Some(total)
}

fn http_date(text: &str) -> Option<OffsetDateTime> {
    // RFC 9110 section 5.6.7: IMF-fixdate is always in GMT; the obsolete forms are of no use to a limit.
    let fixed = text.strip_suffix("GMT").map(|head| format!("{head}+0000"))?;
    OffsetDateTime::parse(&fixed, &Rfc2822).ok()
}

fn date_time(text: &str) -> Option<PrimitiveDateTime> {
    let form = format_description!("[year]-[month]-[day] [hour]:[minute]:[second]");
    PrimitiveDateTime::parse(text, form).ok()
}

fn ahead(seconds: f64, now: WallTime) -> Option<WallTime> {
    // Beyond the farthest a value is cut, not dropped: "very long" is still long.
    let seconds = seconds.clamp(LEAST.as_secs_f64(), FARTHEST.as_secs_f64());
    // Rounded up: a wait is never shorter than what was said.
    Duration::try_from_secs_f64((seconds * 1000.0).ceil() / 1000.0).ok().map(|wait| now.plus(wait))
}

fn since_epoch(seconds: f64, now: WallTime) -> Option<WallTime> {
    let since = Duration::try_from_secs_f64(seconds).ok()?;
    bounded(WallTime(u64::try_from(since.as_millis()).ok()?), now)
}

fn moment(at: OffsetDateTime, now: WallTime) -> Option<WallTime> {
    let millis = at.unix_timestamp_nanos().checked_div(1_000_000)?;
    bounded(WallTime(u64::try_from(millis).ok()?), now)
}

fn bounded(at: WallTime, now: WallTime) -> Option<WallTime> {
    if at <= now {
        return None;
    }
    Some(at.max(now.plus(LEAST)).min(now.plus(FARTHEST)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// 2026-04-01T00:00:00Z
    const NOW: WallTime = WallTime(1_775_001_600_000);

    #[test]
    fn reads_every_declared_form() {
        use Format::*;
        let seconds = |value: f64| Some(NOW.plus(Duration::from_secs_f64(value)));
        let at = |millis: u64| Some(WallTime(millis));
        let cases = [
            (SecondsOrDate, "12", seconds(12.0)),
            (SecondsOrDate, " 12 ", seconds(12.0)),
            (SecondsOrDate, "0", seconds(1.0)),
            (SecondsOrDate, "-5", None),
            (SecondsOrDate, "abc", None),
            (SecondsOrDate, "NaN", None),
            (SecondsOrDate, "inf", None),
            (SecondsOrDate, "1e309", None),
            (SecondsOrDate, "1e3", None),
            (SecondsOrDate, "", None),
            (SecondsOrDate, ".", None),
            (SecondsOrDate, "1.2.3", None),
            (SecondsOrDate, "1.5", seconds(1.5)),
            (SecondsOrDate, "124633", seconds(124_633.0)),
            (SecondsOrDate, "99999999999999999999", seconds(FARTHEST.as_secs_f64())),
            (SecondsOrDate, "Wed, 01 Apr 2026 00:01:00 GMT", seconds(60.0)),
            (SecondsOrDate, "Fri, 31 Dec 2027 23:59:59 GMT", seconds(FARTHEST.as_secs_f64())),
            (SecondsOrDate, "Wed, 31 Dec 2025 23:59:59 GMT", None),
            (SecondsOrDate, "Thu, 31 Dec 2027", None),
            (Seconds, "33011.382867", seconds(33_011.382)),
            (Millis, "1500", seconds(1.5)),
            (Millis, "12", seconds(1.0)),
            (GoDuration, "6m0s", seconds(360.0)),
            (GoDuration, "2m59.56s", seconds(179.56)),
            (GoDuration, "12ms", seconds(1.0)),
            (GoDuration, "1h2m3.5s", seconds(3723.5)),
            (GoDuration, "10h17m5.72s", seconds(37_025.72)),
            (GoDuration, "5m", seconds(300.0)),
            (GoDuration, "120", seconds(120.0)),
            (GoDuration, "5x", None),
            (GoDuration, "m", None),
            (GoDuration, "-5m", None),
            (ProtoDuration, "21926s", seconds(21_926.0)),
            (ProtoDuration, "0.5s", seconds(1.0)),
            (ProtoDuration, "34", None),
            (Epoch, "1777593600", at(1_777_593_600_000)),
            (Epoch, "1777593600.25", at(1_777_593_600_250)),
            (Epoch, "12", None),
            (EpochMillis, "1775001660000", at(1_775_001_660_000)),
            (EpochMillis, "1783519740000", seconds(FARTHEST.as_secs_f64())),
            (Rfc3339, "2026-04-01T10:00:00Z", seconds(36_000.0)),
            (Rfc3339, "2026-04-02T00:00:00+08:00", seconds(57_600.0)),
            (Rfc3339, "2026-04-01", None),
            (DateAtTime, "2026-04-02 at 00:00", seconds(86_400.0)),
            (DateTime, "2026-04-01 18:30:00", seconds(66_600.0)),
            (DateTimeShanghai, "2026-04-01 18:30:00", seconds(37_800.0)),
            (DateTimeShanghai, "2026-04-01 07:30:00", None),
        ];
        for (format, text, expected) in cases {
            let found = format.read(text.as_bytes(), NOW);
            let near = match (found, expected) {
                (Some(a), Some(b)) => a.0.abs_diff(b.0) <= 1,
                (a, b) => a == b,
            };
            assert!(near, "{format:?} {text:?}: {found:?}, not {expected:?}");
        }
    }

    #[test]
    fn midnight_is_that_of_the_zone() {
        assert_eq!(next_midnight(8, NOW), NOW.plus(Duration::from_secs(8 * 3600)));
        assert_eq!(next_midnight(8, NOW.plus(Duration::from_secs(8 * 3600))), NOW.plus(Duration::from_secs(32 * 3600)));
        assert_eq!(next_midnight(0, WallTime(0)), WallTime(86_400_000));
    }

    proptest! {
        #[test]
        fn is_total_on_arbitrary_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..80), now in any::<u64>()) {
            let now = WallTime(now);
            for (_, format) in Format::NAMED {
                if let Some(at) = format.read(&bytes, now) {
                    prop_assert!(at >= now && at <= now.plus(FARTHEST));
                }
            }
        }

        #[test]
        fn is_total_on_near_misses(text in "[0-9.:hmsTZ+ -]{0,30}|[A-Z][a-z]{2}, [0-9]{2} [A-Z][a-z]{2} [0-9]{4} [0-9:]{8} GMT") {
            for (_, format) in Format::NAMED {
                if let Some(at) = format.read(text.as_bytes(), NOW) {
                    prop_assert!(at > NOW && at <= NOW.plus(FARTHEST));
                }
            }
        }
    }
}
