//! Formats times for people and programs. Pure: UTC only, no clock, no time zones.

use std::time::{Duration, UNIX_EPOCH};

const SECOND_NS: u64 = 1_000_000_000;
const DAY_SECONDS: u64 = 86_400;

/// Formats nanoseconds since the Unix epoch by RFC 3339, in UTC and to the nanosecond.
pub(crate) fn rfc3339(wall_ns: u64) -> String {
    humantime::format_rfc3339_nanos(UNIX_EPOCH + Duration::from_nanos(wall_ns)).to_string()
}

/// Formats the time of day of nanoseconds since the Unix epoch, in UTC: `12:03:41`.
pub(crate) fn clock(wall_ns: u64) -> String {
    let second = wall_ns / SECOND_NS % DAY_SECONDS;
    format!("{:02}:{:02}:{:02}", second / 3600, second / 60 % 60, second % 60)
}

#[cfg(test)]
mod tests {
    use super::{SECOND_NS, rfc3339};

    #[test]
    fn times_are_formatted_as_by_date_minus_u() {
        let table = [
            (0, "1970-01-01T00:00:00.000000000Z"),
            (68_169_599, "1972-02-28T23:59:59.000000000Z"),
            (68_169_600, "1972-02-29T00:00:00.000000000Z"),
            (951_782_400, "2000-02-29T00:00:00.000000000Z"),
            (1_772_366_621, "2026-03-01T12:03:41.000000000Z"),
            (1_798_761_599, "2026-12-31T23:59:59.000000000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000000000Z"),
        ];
        for (second, expected) in table {
            assert_eq!(rfc3339(second * SECOND_NS), expected);
        }
        assert_eq!(rfc3339(1_234_567), "1970-01-01T00:00:00.001234567Z");
        assert_eq!(rfc3339(u64::MAX), "2554-07-21T23:34:33.709551615Z");
    }
}
