//! Formats times for people and programs: programs get RFC 3339 in UTC, people the time of day of a time zone
//! with its offset. No clock: the time is passed in.

use std::env;
use std::str::FromStr;
use std::time::{Duration, UNIX_EPOCH};

use jiff::Timestamp;
use jiff::civil::{DateTime, Time};
use jiff::tz::{Offset, TimeZone};

/// Names of zones that are UTC all year.
const UTC_NAMES: [&str; 7] = ["UTC", "Etc/UTC", "UCT", "Etc/UCT", "Universal", "Zulu", "Etc/Universal"];

/// Formats nanoseconds since the Unix epoch by RFC 3339, in UTC and to the nanosecond.
pub(crate) fn rfc3339(wall_ns: u64) -> String {
    humantime::format_rfc3339_nanos(UNIX_EPOCH + Duration::from_nanos(wall_ns)).to_string()
}

/// Formats a time for the name of a file, to the millisecond: `20260301T120341.000Z`.
pub(crate) fn stamp(wall_ns: u64) -> String {
    let moment: String = rfc3339(wall_ns).chars().filter(|c| !matches!(c, '-' | ':')).take(19).collect();
    format!("{moment}Z")
}

/// The time zone of times for people. All its rules are in memory, so that a change of the offset during the
/// run needs no file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Zone {
    /// UTC, by its name.
    #[default]
    Utc,
    /// Another one, by its offset.
    Local(&'static TimeZone),
}

impl Zone {
    /// The zone of this process: that of the variable `TZ`, else that of the machine; UTC with `utc`, and
    /// where there is none. Reads the machine's database, so it is to be called before privileges are given
    /// up.
    ///
    /// # Errors
    ///
    /// `TZ` names no zone: the sentence that says so.
    pub(crate) fn of_process(utc: bool) -> Result<Self, String> {
        if utc {
            return Ok(Self::Utc);
        }
        match TimeZone::try_system() {
            Ok(zone) => Ok(Self::of(zone)),
            Err(_) => match env::var_os("TZ").filter(|name| !name.is_empty()) {
                Some(name) => Err(format!("TZ={}: there is no such time zone", name.display())),
                None => Ok(Self::Utc),
            },
        }
    }

    /// A zone by its rules.
    fn of(zone: TimeZone) -> Self {
        let is_utc = zone == TimeZone::UTC || zone.iana_name().is_some_and(|name| UTC_NAMES.contains(&name));
        // One per process, and as many as there are cases in tests.
        if is_utc { Self::Utc } else { Self::Local(Box::leak(Box::new(zone))) }
    }

    /// A zone by the rules of POSIX, such as `CET-1CEST,M3.5.0,M10.5.0/3`.
    #[cfg(test)]
    pub(crate) fn posix(rules: &str) -> Self {
        Self::of(TimeZone::posix(rules).expect("rules of a zone"))
    }

    fn at(self, wall_ns: u64) -> (DateTime, Option<Offset>) {
        // Nanoseconds of 64 bits end in the year 2554, jiff's in 9999.
        let moment = Timestamp::from_nanosecond(wall_ns.into()).unwrap_or_default();
        match self {
            Self::Utc => (Offset::UTC.to_datetime(moment), None),
            Self::Local(zone) => {
                let offset = zone.to_offset(moment);
                (offset.to_datetime(moment), Some(offset))
            }
        }
    }

    /// The time of day alone, where the zone is named beside it: `12:03:41`.
    pub(crate) fn clock(self, wall_ns: u64) -> String {
        clock(self.at(wall_ns).0)
    }

    /// The time of day, with its date where that is not today's: `now_ns` is now.
    pub(crate) fn clock_of(self, wall_ns: u64, now_ns: u64) -> String {
        let ((then, _), (now, _)) = (self.at(wall_ns), self.at(now_ns));
        if then.date() == now.date() { clock(then) } else { format!("{} {}", then.date(), clock(then)) }
    }

    /// The time of day with its offset: `12:03:41 +02:00`, `12:03:41 UTC`.
    pub(crate) fn label(self, wall_ns: u64) -> String {
        let (then, offset) = self.at(wall_ns);
        format!("{} {}", clock(then), named(offset))
    }

    /// The date too: `2011-09-27 18:07:20 +02:00`.
    pub(crate) fn dated(self, wall_ns: u64) -> String {
        format!("{} {}", self.at(wall_ns).0.date(), self.label(wall_ns))
    }
}

/// A time as people name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    /// A moment.
    At(Timestamp),
    /// A date and the time of day, of the zone of times for people.
    Dated(DateTime),
    /// The time of day: the latest such time.
    OfDay(Time),
}

impl When {
    /// The time, ns since the Unix epoch: of a time of day the latest that is not after `end_ns`. Of a time that the
    /// zone has twice it is the later one.
    pub(crate) fn wall_ns(self, zone: Zone, end_ns: u64) -> Option<u64> {
        let at = |time: DateTime| match zone {
            Zone::Utc => Offset::UTC.to_timestamp(time).ok(),
            Zone::Local(zone) => zone.to_ambiguous_timestamp(time).later().ok(),
        };
        let found = match self {
            Self::At(moment) => Some(moment),
            Self::Dated(time) => at(time),
            Self::OfDay(time) => {
                let today = zone.at(end_ns).0.date();
                let days = [Some(today), today.yesterday().ok()].into_iter().flatten();
                let latest = |moment: &Timestamp| moment.as_nanosecond() <= i128::from(end_ns);
                days.filter_map(|day| at(day.to_datetime(time))).find(latest)
            }
        };
        u64::try_from(found?.as_nanosecond()).ok()
    }
}

impl FromStr for When {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let of_day = || text.parse().map(Self::OfDay).ok().filter(|_| !text.contains(['-', ' ']));
        let moment = || text.parse().map(Self::At).ok();
        let dated = || text.parse().map(Self::Dated).ok();
        of_day().or_else(moment).or_else(dated).ok_or_else(|| {
            format!("'{text}' is no time such as 17:44, '2026-03-01 17:44:03' or 2026-03-01T17:44:03Z")
        })
    }
}

fn clock(time: DateTime) -> String {
    format!("{:02}:{:02}:{:02}", time.hour(), time.minute(), time.second())
}

/// An offset as RFC 3339 writes it; no zone but UTC is without one.
fn named(offset: Option<Offset>) -> String {
    let Some(offset) = offset else { return "UTC".to_owned() };
    let (sign, seconds) = (if offset.is_negative() { '-' } else { '+' }, offset.seconds().unsigned_abs());
    format!("{sign}{:02}:{:02}", seconds / 3600, seconds / 60 % 60)
}

#[cfg(test)]
mod tests {
    use super::{When, Zone, rfc3339, stamp};

    const SECOND_NS: u64 = 1_000_000_000;

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
            let dated = Zone::Utc.dated(second * SECOND_NS);
            assert_eq!(dated, expected.replace('T', " ").replace(".000000000Z", " UTC"));
        }
        assert_eq!(rfc3339(1_234_567), "1970-01-01T00:00:00.001234567Z");
        assert_eq!(stamp(1_772_366_621_987_654_321), "20260301T120341.987Z");
        assert_eq!(rfc3339(u64::MAX), "2554-07-21T23:34:33.709551615Z");
        assert_eq!(Zone::Utc.dated(u64::MAX), "2554-07-21 23:34:33 UTC");
    }

    /// The offset is that of the moment, so it changes within a run.
    #[test]
    fn the_offset_follows_daylight_saving_time() {
        let zone = Zone::posix("CET-1CEST,M3.5.0,M10.5.0/3");
        // 2026-03-29 01:00 UTC and 2026-10-25 01:00 UTC.
        for (change, before, after) in [
            (1_774_746_000, "01:59:59 +01:00", "03:00:00 +02:00"),
            (1_792_890_000, "02:59:59 +02:00", "02:00:00 +01:00"),
        ] {
            let around = [change - 1, change].map(|second: u64| zone.label(second * SECOND_NS));
            assert_eq!(around, [before, after]);
        }
        assert_eq!(zone.dated(1_798_761_599 * SECOND_NS), "2027-01-01 00:59:59 +01:00");
        let [negative, odd] = ["EST5EDT,M3.2.0,M11.1.0", "XYZ-5:45"].map(Zone::posix);
        assert_eq!(negative.label(1_772_366_621 * SECOND_NS), "07:03:41 -05:00");
        assert_eq!(odd.label(1_772_366_621 * SECOND_NS), "17:48:41 +05:45");
    }

    #[test]
    fn a_time_of_another_day_has_its_date() {
        let (zone, now) = (Zone::posix("XYZ-2"), 1_772_366_621 * SECOND_NS);
        assert_eq!(zone.clock(now), "14:03:41");
        assert_eq!(zone.clock_of(now - 14 * 3600 * SECOND_NS, now), "00:03:41");
        assert_eq!(zone.clock_of(now - 15 * 3600 * SECOND_NS, now), "2026-02-28 23:03:41");
    }

    #[test]
    fn a_time_is_named_in_several_ways() {
        let zone = Zone::posix("CET-1CEST,M3.5.0,M10.5.0/3");
        // 2026-03-01 12:03:41 UTC, and half an hour after the change to winter time.
        let (end, winter) = (1_772_366_621, 1_792_890_000 + 1_800);
        let table = [
            ("2026-03-01T12:00:00Z", end, Some(end - 221)),
            ("2026-03-01T12:00:00+02:00", end, Some(end - 221 - 7_200)),
            ("2026-03-01 13:00:00", end, Some(end - 221)),
            ("2026-03-01 13:00", end, Some(end - 221)),
            ("13:03:41", end, Some(end)),
            ("13:03:42", end, Some(end + 1 - 86_400)),
            ("13:03", end, Some(end - 41)),
            // There were two of them.
            ("02:15", winter, Some(winter - 900)),
            ("02:45", winter, Some(winter + 900 - 86_400 - 3_600)),
        ];
        for (text, end, expected) in table {
            let when: When = text.parse().expect(text);
            let found = when.wall_ns(zone, end * SECOND_NS).map(|ns| ns / SECOND_NS);
            assert_eq!(found, expected, "{text}");
        }
        for wrong in ["", "25:00", "yesterday", "-5m"] {
            assert!(wrong.parse::<When>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn utc_is_named() {
        assert_eq!(Zone::of(jiff::tz::TimeZone::UTC), Zone::Utc);
        assert_eq!(Zone::of_process(true), Ok(Zone::Utc));
        assert_ne!(Zone::posix("GMT0BST,M3.5.0/1,M10.5.0"), Zone::Utc, "its offset changes");
    }
}
