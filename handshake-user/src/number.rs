//! Numbers formatted for people, and sizes that people write.

/// Parses a size in bytes: `4096`, `512M`, `2G`; the units are powers of 1024.
///
/// # Errors
///
/// What is wrong with the text.
pub(crate) fn bytes(text: &str) -> Result<u64, String> {
    const UNITS: [(char, u32); 4] = [('K', 10), ('M', 20), ('G', 30), ('T', 40)];
    let unit = text.chars().last().and_then(|last| {
        UNITS.into_iter().find(|(name, _)| *name == last.to_ascii_uppercase()).map(|(_, shift)| shift)
    });
    let digits = if unit.is_some() { &text[..text.len() - 1] } else { text };
    let wrong = || "not a size such as 512M or 2G".to_owned();
    let number: u64 = if digits.bytes().all(|byte| byte.is_ascii_digit()) {
        digits.parse().map_err(|_| wrong())?
    } else {
        return Err(wrong());
    };
    number.checked_mul(1 << unit.unwrap_or(0)).ok_or_else(|| "too large".to_owned())
}

/// Formats a number with its digits in groups of three: `24 080`.
pub(crate) fn group(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at != 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(' ');
        }
        grouped.push(digit);
    }
    grouped
}

/// Formats a number like [`group`], but from one million on with one decimal: `1.9 M`. Further digits are cut
/// off, so it is never rounded up.
pub(crate) fn short(number: u64) -> String {
    const SCALES: [(u64, &str); 3] = [(1_000_000_000_000, "T"), (1_000_000_000, "G"), (1_000_000, "M")];
    match SCALES.iter().find(|(scale, _)| number >= *scale) {
        Some((scale, name)) => {
            format!("{}.{} {name}", group(number / scale), number % scale / (scale / 10))
        }
        None => group(number),
    }
}

/// Formats bytes: `512 MiB`, `1.9 GiB`. Further digits are cut off.
pub(crate) fn size(bytes: u64) -> String {
    const GIB: u64 = 1 << 30;
    match bytes {
        0..1_024 => format!("{bytes} B"),
        1_024..0x10_0000 => format!("{} KiB", bytes >> 10),
        0x10_0000..GIB => format!("{} MiB", bytes >> 20),
        _ => format!("{}.{} GiB", group(bytes / GIB), bytes % GIB * 10 / GIB),
    }
}

/// Formats nanoseconds in the unit that fits: `41 µs`, `1.9 s`.
pub(crate) fn time(ns: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1_000_000_000, "s"), (1_000_000, "ms"), (1_000, "µs")];
    match UNITS.iter().find(|(scale, _)| ns >= *scale) {
        Some((scale, unit)) if ns / scale < 10 => {
            format!("{}.{} {unit}", ns / scale, ns % scale / (scale / 10))
        }
        Some((scale, unit)) => format!("{} {unit}", group(ns / scale)),
        None => format!("{ns} ns"),
    }
}

/// Formats a duration in nanoseconds: `20 s`, `3 min 20 s`, `2 h 5 min`.
pub(crate) fn span(ns: u64) -> String {
    let seconds = ns / 1_000_000_000;
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        _ if ns == 0 => "0 s".to_owned(),
        (0, 0, 0..10) => time(ns).replace(".0 ", " "),
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (hours, minutes, _) => format!("{} h {minutes} min", group(hours)),
    }
}

/// `part` of `whole` in percent with one decimal. 100.0 means all and 0.0 means none: less than a tenth is
/// `<0.1 %`.
pub(crate) fn percent(part: u64, whole: u64) -> String {
    if is_below(part, whole, 1_000) {
        return "<0.1 %".to_owned();
    }
    let tenths = share(part, whole, 1000);
    format!("{}.{} %", tenths / 10, tenths % 10)
}

/// `part` of `whole` in whole percent. 100 means all and 0 means none: less than one is `<1 %`.
pub(crate) fn whole_percent(part: u64, whole: u64) -> String {
    if is_below(part, whole, 100) {
        return "<1 %".to_owned();
    }
    format!("{} %", share(part, whole, 100))
}

/// Formats `count` events in `ns` nanoseconds as a rate per second: `1 204/s`, `0.5/s`.
pub(crate) fn rate(count: u64, ns: u64) -> String {
    let tenths = u128::from(count) * 10_000_000_000 / u128::from(ns.max(1));
    let tenths = u64::try_from(tenths).unwrap_or(u64::MAX);
    if tenths < 100 && !tenths.is_multiple_of(10) {
        format!("{}.{}/s", tenths / 10, tenths % 10)
    } else {
        format!("{}/s", group(tenths / 10))
    }
}

/// Whether `part` is something, and less than one of `scale` parts of `whole`.
fn is_below(part: u64, whole: u64, scale: u64) -> bool {
    part != 0 && u128::from(part) * u128::from(scale) < u128::from(whole)
}

/// `part` of `whole` in units of 1/`scale`, rounded. Only an exact 0 or 1 rounds to 0 or `scale`.
fn share(part: u64, whole: u64, scale: u64) -> u64 {
    let (part, whole) = (u128::from(part), u128::from(whole.max(1)));
    let rounded = (part * u128::from(scale) + whole / 2) / whole;
    let rounded = u64::try_from(rounded).unwrap_or(u64::MAX);
    if part == 0 {
        0
    } else if part >= whole {
        rounded
    } else {
        rounded.clamp(1, scale - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::{bytes, group, percent, rate, short, span, time, whole_percent};

    #[test]
    fn sizes_are_powers_of_1024() {
        for (text, size) in [("0", 0), ("4096", 4096), ("3k", 3072), ("512M", 512 << 20), ("2G", 2 << 30)] {
            assert_eq!(bytes(text), Ok(size), "{text}");
        }
        for text in ["", "M", "-1", "+1", "1.5G", "2GiB", "9 M", "1\u{e9}", "99999999999999999999"] {
            assert_eq!(bytes(text), Err("not a size such as 512M or 2G".to_owned()), "{text}");
        }
        assert_eq!(bytes("99999999999T"), Err("too large".to_owned()));
    }

    #[test]
    fn digits_are_grouped_in_threes() {
        for (number, shown) in [(0, "0"), (999, "999"), (1_000, "1 000"), (24_080, "24 080")] {
            assert_eq!(group(number), shown);
            assert_eq!(short(number), shown);
        }
        assert_eq!(group(u64::MAX), "18 446 744 073 709 551 615");
        assert_eq!((short(999_999), short(1_000_000)), ("999 999".to_owned(), "1.0 M".to_owned()));
        assert_eq!((short(1_999_999), short(12_340_000_000)), ("1.9 M".to_owned(), "12.3 G".to_owned()));
    }

    #[test]
    fn a_time_is_shown_in_the_unit_that_fits() {
        let table = [
            (0, "0 ns"),
            (999, "999 ns"),
            (1_000, "1.0 µs"),
            (41_999, "41 µs"),
            (18_000_000, "18 ms"),
            (1_950_000_000, "1.9 s"),
            (274_000_000_000, "274 s"),
        ];
        for (ns, shown) in table {
            assert_eq!(time(ns), shown);
        }
        let spans = [(0, "0 s"), (1, "1 s"), (20, "20 s"), (200, "3 min 20 s"), (7_500, "2 h 5 min")];
        for (seconds, shown) in spans {
            assert_eq!(span(seconds * 1_000_000_000), shown);
        }
        assert_eq!(span(1_500_000_000), "1.5 s");
    }

    #[test]
    fn only_all_is_100_percent_and_only_none_is_0_percent() {
        assert_eq!((percent(14_737, 24_080), whole_percent(9_343, 24_080)), ("61.2 %".into(), "39 %".into()));
        assert_eq!(
            (percent(0, 5), percent(5, 5), percent(0, 0)),
            ("0.0 %".into(), "100.0 %".into(), "0.0 %".into())
        );
        assert_eq!((percent(1, 1_000_000), percent(999_999, 1_000_000)), ("<0.1 %".into(), "99.9 %".into()));
        assert_eq!((percent(1, 1_000), whole_percent(1, 100)), ("0.1 %".into(), "1 %".into()));
        assert_eq!((whole_percent(1, 1_000), whole_percent(999, 1_000)), ("<1 %".into(), "99 %".into()));
    }

    #[test]
    fn rates_below_ten_keep_a_decimal() {
        let second = 1_000_000_000;
        let shown = [(24_080, 20), (1, 2), (0, 1), (9, 1), (1, 1)].map(|(n, s)| rate(n, s * second));
        assert_eq!(shown, ["1 204/s", "0.5/s", "0/s", "9/s", "1/s"]);
        assert_eq!(rate(5, 0), "5 000 000 000/s", "an elapsed time of 0 counts as 1 ns");
    }
}
