//! Durations as text, in the grammar that Go programs know: `1m30s`, `250ms`, `1.5h`, `0`.

use std::time::Duration;

/// Longest first where one is the beginning of another.
const UNITS: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("\u{b5}s", 1_000),
    ("\u{3bc}s", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// The duration in whole milliseconds, at most `u64::MAX`.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Reads a duration: `0`, or numbers each with a unit of `ns`, `us`, `ms`, `s`, `m`, `h`, such as
/// `1h2m3.5s`. Never negative; days and bare numbers are refused.
///
/// # Errors
/// What is wrong, in words that continue "the value".
pub fn parse(text: &str) -> Result<Duration, String> {
    const RULE: &str = "is not a duration; use a form like 250ms, 1.5s or 1h2m3s";
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut rest = text;
    let mut total: u128 = 0;
    while !rest.is_empty() {
        let is_number = |c: char| c.is_ascii_digit() || c == '.';
        let end = rest.find(|c| !is_number(c)).unwrap_or(rest.len());
        let (number, behind) = rest.split_at(end);
        let unit_end = behind.find(is_number).unwrap_or(behind.len());
        let (unit, remaining) = behind.split_at(unit_end);
        let nanos_per_unit = UNITS.iter().find(|(name, _)| *name == unit);
        let (_, nanos_per_unit) = nanos_per_unit.ok_or(RULE)?;
        total = total
            .checked_add(nanos(number, *nanos_per_unit).ok_or(RULE)?)
            .ok_or("is too long")?;
        rest = remaining;
    }
    if text.is_empty() {
        return Err(RULE.into());
    }
    let nanos = u64::try_from(total).map_err(|_| "is too long")?;
    Ok(Duration::from_nanos(nanos))
}

/// A decimal number of units in nanoseconds, cut off below that; `None` when it is no number.
fn nanos(number: &str, nanos_per_unit: u64) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let has_digits = !whole.is_empty() || !fraction.is_empty();
    if !has_digits || fraction.contains('.') || whole.len() > 20 {
        return None;
    }
    let whole: u128 = if whole.is_empty() {
        0
    } else {
        whole.parse().ok()?
    };
    let nanos = whole.checked_mul(u128::from(nanos_per_unit))?;
    let (mut part, mut scale) = (0, 1);
    // Digits beyond the 18th are worth less than a nanosecond even of an hour.
    for digit in fraction.bytes().take(18) {
        part = part * 10 + u128::from(digit - b'0');
        scale *= 10;
    }
    nanos.checked_add(part * u128::from(nanos_per_unit) / scale)
}

/// Writes a duration as Go does: `1m30s`, `1.5s`, `250ms`, `0s`.
#[must_use]
pub fn format(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    if nanos == 0 {
        return "0s".into();
    }
    if nanos < 1_000_000_000 {
        let (unit, scale) = match nanos {
            0..1_000 => ("ns", 1),
            1_000..1_000_000 => ("us", 1_000),
            _ => ("ms", 1_000_000),
        };
        return decimal(nanos, scale) + unit;
    }
    let seconds = decimal(nanos % 60_000_000_000, 1_000_000_000);
    let minutes = nanos / 60_000_000_000;
    match (minutes / 60, minutes % 60) {
        (0, 0) => format!("{seconds}s"),
        (0, minutes) => format!("{minutes}m{seconds}s"),
        (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
    }
}

/// `value / scale` without needless zeros; `scale` is a power of ten.
fn decimal(value: u128, scale: u128) -> String {
    let (whole, mut fraction) = (value / scale, value % scale);
    if fraction == 0 {
        return whole.to_string();
    }
    let mut digits = scale.ilog10() as usize;
    while fraction % 10 == 0 {
        fraction /= 10;
        digits -= 1;
    }
    format!("{whole}.{fraction:0digits$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_parsed_as_in_go() {
        for (text, nanos) in [
            ("0", 0),
            ("0s", 0),
            ("1ns", 1),
            ("1.5us", 1_500),
            ("250ms", 250_000_000),
            (".5s", 500_000_000),
            ("1.s", 1_000_000_000),
            ("1m30s", 90_000_000_000),
            ("1h2m3.5s", 3_723_500_000_000),
            ("1.000000000000000000000s", 1_000_000_000),
            ("0.1h", 360_000_000_000),
            ("0.9999999999999999999h", 3_599_999_999_999),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_nanos(nanos)), "{text}");
        }
        for text in [
            "",
            "1",
            "s",
            "1 s",
            "1m 30s",
            "-1s",
            "+1s",
            "1d",
            "1w",
            "1.2.3s",
            ".s",
            "1e3s",
            "99999999h",
            "99999999999999999999999h",
            "1S",
            "\u{661}s",
        ] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn formatted_duration_parses_to_same_value() {
        for nanos in [
            1,
            999,
            1_000,
            1_500,
            1_000_000,
            250_000_000,
            999_999_999,
            1_000_000_001,
            59_999_000_000,
            60_000_000_000,
            90_000_000_000,
            3_600_000_000_000,
            3_661_050_000_000,
        ] {
            let duration = Duration::from_nanos(nanos);
            assert_eq!(
                parse(&format(duration)),
                Ok(duration),
                "{}",
                format(duration)
            );
        }
        assert_eq!(format(Duration::from_millis(1_500)), "1.5s");
        assert_eq!(format(Duration::from_secs(90)), "1m30s");
        assert_eq!(format(Duration::from_secs(3_600)), "1h0m0s");
        assert_eq!(format(Duration::ZERO), "0s");
    }
}
