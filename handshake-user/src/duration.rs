//! Durations on the command line. Pure.

use std::time::Duration;

use humantime::DurationError;

/// Most digits that a duration may have. With 17, humantime's sum could reach 2⁶⁴ seconds, where it panics.
const MOST_DIGITS: usize = 16;
/// Longest time of a rule. Jiffies are compared serially, and 2³¹ of them at 1000 Hz are 24 days.
const LONGEST_CLOCK: Duration = Duration::from_secs(7 * 24 * 3600);
/// Shortest interval. Reading the tables more often would keep the machine busy with nothing else.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(10);

/// Parses a duration such as `1500ms`, `3s`, `1.5s`, `2m` or `1h 30m`.
///
/// # Errors
///
/// What is wrong with the text: no number, no unit, or more than 584 years.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let too_long = || "too long".to_owned();
    if text.chars().filter(char::is_ascii_digit).count() > MOST_DIGITS {
        return Err(too_long());
    }
    // M is a month to humantime.
    let unknown = |unit: &str| format!("'{unit}' is not a unit: use ms, s, m or h");
    if text.contains('M') {
        return Err(unknown("M"));
    }
    let time = humantime::parse_duration(text).map_err(|error| match error {
        DurationError::UnknownUnit { unit, .. } if unit.is_empty() => {
            "a unit is missing: ms, s, m or h".to_owned()
        }
        DurationError::UnknownUnit { unit, .. } => unknown(&unit),
        DurationError::NumberOverflow => too_long(),
        DurationError::InvalidCharacter(_) | DurationError::NumberExpected(_) | DurationError::Empty => {
            "not a duration such as 3s or 1500ms".to_owned()
        }
    })?;
    u64::try_from(time.as_nanos()).map(Duration::from_nanos).map_err(|_| too_long())
}

/// Formats a duration so that [`duration`] can parse it: `1h`, `75s`, `1500ms`.
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

/// Parses a time to run for: any duration but zero.
pub(crate) fn period(text: &str) -> Result<Duration, String> {
    duration(text).and_then(|time| if time.is_zero() { Err("must not be 0".to_owned()) } else { Ok(time) })
}

/// Parses the time between two reports: at least 10 ms.
pub(crate) fn interval(text: &str) -> Result<Duration, String> {
    duration(text).and_then(|time| {
        if time < SHORTEST_INTERVAL { Err("must be at least 10ms".to_owned()) } else { Ok(time) }
    })
}

/// Parses a time of the rules: not zero, and at most 168 hours.
pub(crate) fn clock(text: &str) -> Result<Duration, String> {
    period(text)
        .and_then(|time| if time > LONGEST_CLOCK { Err("must be at most 168h".to_owned()) } else { Ok(time) })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{clock, duration, interval, period, shown};

    #[test]
    fn a_duration_is_a_number_and_a_unit() {
        let table = [
            ("3s", 3_000),
            ("1500ms", 1_500),
            ("2m", 120_000),
            ("1h", 3_600_000),
            ("0s", 0),
            ("1.5s", 1_500),
            ("1h 30m", 5_400_000),
            ("1m500ms", 60_500),
            ("20 sec", 20_000),
        ];
        for (text, ms) in table {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        assert_eq!(duration("7us"), Ok(Duration::from_micros(7)));
        assert_eq!(duration("7µs"), Ok(Duration::from_micros(7)));
        assert_eq!(duration("7ns"), Ok(Duration::from_nanos(7)));
    }

    #[test]
    fn a_wrong_duration_has_a_message_that_names_the_fault() {
        let table = [
            ("", "not a duration such as 3s or 1500ms"),
            ("s", "not a duration such as 3s or 1500ms"),
            ("-3s", "not a duration such as 3s or 1500ms"),
            ("3", "a unit is missing: ms, s, m or h"),
            ("1h 30", "a unit is missing: ms, s, m or h"),
            ("3x", "'x' is not a unit: use ms, s, m or h"),
            ("3M", "'M' is not a unit: use ms, s, m or h"),
            ("6000000h", "too long"),
            ("99999999999999999999s", "too long"),
            ("18446744073709551615s 1000ms", "too long"),
        ];
        for (text, wrong) in table {
            assert_eq!(duration(text), Err(wrong.to_owned()), "{text}");
        }
    }

    #[test]
    fn a_shown_duration_parses_to_itself() {
        for text in ["1h", "75s", "60s", "1500ms", "7ns", "0s"] {
            assert_eq!(shown(duration(text).expect(text)), text);
        }
    }

    #[test]
    fn each_kind_of_duration_has_its_bounds() {
        assert!(period("0s").is_err() && period("1ns").is_ok());
        assert!(interval("9ms").is_err() && interval("10ms").is_ok());
        assert!(clock("0ms").is_err() && clock("169h").is_err() && clock("168h").is_ok());
    }
}
