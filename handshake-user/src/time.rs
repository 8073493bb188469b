//! Times as people and programs write them. Pure: UTC only, no clock, no time zones.

const SECOND_NS: u64 = 1_000_000_000;
const DAY_SECONDS: u64 = 86_400;

/// A moment as RFC 3339 writes it, in UTC and to the nanosecond.
pub(crate) fn rfc3339(wall_ns: u64) -> String {
    let (year, month, day) = date(wall_ns / SECOND_NS / DAY_SECONDS);
    format!("{year:04}-{month:02}-{day:02}T{}.{:09}Z", clock(wall_ns), wall_ns % SECOND_NS)
}

/// The time of day, in UTC.
pub(crate) fn clock(wall_ns: u64) -> String {
    let second = wall_ns / SECOND_NS % DAY_SECONDS;
    format!("{:02}:{:02}:{:02}", second / 3600, second / 60 % 60, second % 60)
}

/// Year, month and day of a day since 1970-01-01. Years are counted one by one: u64 ns end in 2554.
fn date(mut day: u64) -> (u64, usize, u64) {
    let mut year = 1970;
    while day >= 365 + leap(year) {
        day -= 365 + leap(year);
        year += 1;
    }
    let months = [31, 28 + leap(year), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    while day >= months[month] {
        day -= months[month];
        month += 1;
    }
    (year, month + 1, day + 1)
}

/// The days a leap year has more.
const fn leap(year: u64) -> u64 {
    (year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))) as u64
}

#[cfg(test)]
mod tests {
    use super::{SECOND_NS, rfc3339};

    #[test]
    fn moments_are_those_of_date_minus_u() {
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
