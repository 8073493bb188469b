//! What durations on the command line and in expectations mean. Pure.

use std::time::Duration;

/// The units of a duration, and how many ns each has. Longer names first: `ms` ends in `s`.
pub(crate) const UNITS: [(&str, u64); 6] = [
    ("ns", 1),
    ("us", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60 * 1_000_000_000),
    ("h", 3_600 * 1_000_000_000),
];

/// The longest time a rule can name: jiffies compare serially, and 2³¹ of them at 1000 Hz are 24 days.
const LONGEST_CLOCK: Duration = Duration::from_secs(7 * 24 * 3600);
/// Reading the tables more often than this would be the machine's main work.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(10);

/// A duration such as `1500ms`, `3s`, `2m`, `1h`.
///
/// # Errors
///
/// Says what is wrong with the text: no number, no unit, or more than 584 years.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| "not a duration such as 3s or 1500ms".to_owned())?;
    let scale = match UNITS.iter().find(|(name, _)| *name == unit) {
        Some((_, scale)) => *scale,
        None if unit.is_empty() => return Err("a unit is missing: ms, s, m or h".to_owned()),
        None => return Err(format!("{unit} is none of the units ms, s, m, h")),
    };
    number.checked_mul(scale).map(Duration::from_nanos).ok_or_else(|| "too long".to_owned())
}

/// A duration as [`duration`] reads it: `1h`, `75s`, `1500ms`.
pub(crate) fn shown(time: Duration) -> String {
    match time.subsec_nanos() {
        0 if time.as_secs() >= 3_600 && time.as_secs().is_multiple_of(3_600) => {
            format!("{}h", time.as_secs() / 3_600)
        }
        0 => format!("{}s", time.as_secs()),
        nanos if nanos % 1_000_000 == 0 => format!("{}ms", time.as_millis()),
        _ => format!("{}ns", time.as_nanos()),
    }
}

/// How long to run: a duration that is not zero.
pub(crate) fn period(text: &str) -> Result<Duration, String> {
    duration(text).and_then(|time| if time.is_zero() { Err("must not be 0".to_owned()) } else { Ok(time) })
}

/// A time between reports.
pub(crate) fn interval(text: &str) -> Result<Duration, String> {
    duration(text).and_then(|time| {
        if time < SHORTEST_INTERVAL { Err("must be at least 10ms".to_owned()) } else { Ok(time) }
    })
}

/// A time of the rules.
pub(crate) fn clock(text: &str) -> Result<Duration, String> {
    period(text)
        .and_then(|time| if time > LONGEST_CLOCK { Err("must be at most 168h".to_owned()) } else { Ok(time) })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{clock, duration, interval, period, shown};

    #[test]
    fn durations_have_a_number_and_a_unit() {
        let table = [("3s", 3_000), ("1500ms", 1_500), ("2m", 120_000), ("1h", 3_600_000), ("0s", 0)];
        for (text, ms) in table {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)));
        }
        assert_eq!(duration("7us"), Ok(Duration::from_micros(7)));
        assert_eq!(duration("7ns"), Ok(Duration::from_nanos(7)));
        for text in
            ["", "s", "3", "3 s", "-3s", "3.5s", "3sec", "1s500ms", "99999999999999999999s", "6000000h"]
        {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_duration_is_shown_as_it_is_read() {
        for text in ["1h", "75s", "60s", "1500ms", "7ns", "0s"] {
            assert_eq!(shown(duration(text).expect(text)), text);
        }
    }

    #[test]
    fn each_option_has_its_bounds() {
        assert!(period("0s").is_err() && period("1ns").is_ok());
        assert!(interval("9ms").is_err() && interval("10ms").is_ok());
        assert!(clock("0ms").is_err() && clock("169h").is_err() && clock("168h").is_ok());
    }
}
