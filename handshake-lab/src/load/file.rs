//! Parses and validates a scenario file; each mistake has its line.

use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;

use super::mistake::Mistake;
use super::scenario::{
    Amount, Answer, Close, FloodOf, LostSegment, Scenario, Topology, TrafficKind, TrafficSpec, TrafficTarget,
    parse_duration,
};
use crate::{FAMILIES, Family};

/// Duration of a rate if the file has none.
const USUAL: Duration = Duration::from_secs(10);
/// Maximum count of slowed-down attempts: the slowed device takes about 150 ms per SYN+ACK (IPv6: 190 ms),
/// and more attempts than this exceed the second after which they are retransmitted.
const MOST_SLOW: u32 = 5;
/// Maximum number of ICMP errors that a router sends to a host at once; after that one per second
/// (`net.ipv4.route.error_burst`).
const MOST_ERRORS: u32 = 5;

/// Parses a scenario's text.
pub(super) fn parse(name: &str, text: &str) -> Result<Scenario, Mistake> {
    let file: File = toml::from_str(text).map_err(|error| Mistake::of_toml(text, &error))?;
    let validator = Validator { text };
    validator.duration(file.duration.as_ref())?;
    let traffic = file.traffic.iter().map(|table| validator.traffic(table)).collect::<Result<Vec<_>, _>>()?;
    validator.together(&file, &traffic)?;
    Ok(Scenario {
        name: name.to_owned(),
        duration: validator.duration(file.duration.as_ref())?.unwrap_or(USUAL),
        watch: validator.duration(file.watch.as_ref())?,
        starts: validator.starts(&file, &traffic)?,
        sentence: file.sentence,
        topology: file.topology,
        families: file.family.families(),
        tags: file.tags.map(Spanned::into_inner),
        check: file.check,
        expect: file.expect,
        exit: file.exit,
        traffic,
    })
}

/// The keys of the file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    sentence: String,
    #[serde(default)]
    topology: Topology,
    #[serde(default)]
    family: Families,
    #[serde(rename = "for")]
    duration: Option<Spanned<String>>,
    tags: Option<Spanned<[u16; 2]>>,
    #[serde(default)]
    check: Vec<String>,
    #[serde(default)]
    expect: Vec<String>,
    exit: Option<i32>,
    watch: Option<Spanned<String>>,
    starts: Option<Spanned<u32>>,
    traffic: Vec<TomlTable>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Families {
    #[default]
    V4,
    V6,
    Both,
}

impl Families {
    const fn families(self) -> &'static [Family] {
        match self {
            Self::V4 => &[Family::V4],
            Self::V6 => &[Family::V6],
            Self::Both => &FAMILIES,
        }
    }
}

/// The keys of a `[[traffic]]` table. Invalid combinations are found by [`Validator`], so that a mistake has
/// its line.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TomlTable {
    kind: Spanned<Word>,
    count: Option<Spanned<u32>>,
    rate: Option<Spanned<u32>>,
    close: Option<Spanned<Close>>,
    lost: Option<Spanned<LostSegment>>,
    answer: Option<Spanned<Answer>>,
    to: Option<Spanned<TrafficTarget>>,
    of: Option<Spanned<FloodOf>>,
}

/// The names of [`TrafficKind`] in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Word {
    Handshakes,
    Refused,
    Filtered,
    Unreachable,
    NoAck,
    SynScan,
    Retransmitting,
    Slow,
    AcceptQueueOverflow,
    AcceptQueueFull,
    Udp,
    SynFlood,
    Flood,
}

impl Word {
    /// The additional key that this kind accepts, beside `kind`, `count` and `rate`.
    const fn own_key(self) -> Option<&'static str> {
        match self {
            Self::Handshakes => Some("close"),
            Self::Retransmitting => Some("lost"),
            Self::Udp => Some("answer"),
            Self::SynFlood => Some("to"),
            Self::Flood => Some("of"),
            Self::Refused
            | Self::Filtered
            | Self::Unreachable
            | Self::NoAck
            | Self::SynScan
            | Self::Slow
            | Self::AcceptQueueOverflow
            | Self::AcceptQueueFull => None,
        }
    }

    /// Whether the kind can occur only once, or takes too long for a rate.
    const fn has_no_rate(self) -> bool {
        self.is_alone() || matches!(self, Self::Retransmitting | Self::Unreachable)
    }

    /// Whether the kind slows a device down, or waits for a counter of the whole namespace.
    const fn is_alone(self) -> bool {
        matches!(self, Self::Slow | Self::AcceptQueueOverflow | Self::AcceptQueueFull)
    }
}

/// Checks which keys and kinds can be combined. The text is for line numbers.
struct Validator<'a> {
    text: &'a str,
}

impl Validator<'_> {
    fn refuse<T, U>(&self, at: &Spanned<T>, what: impl Into<String>) -> Result<U, Mistake> {
        Err(Mistake::at(self.text, at.span().start, what.into()))
    }

    /// A value as it is spelled in the file.
    fn spelled<T>(&self, value: &Spanned<T>) -> &str {
        self.text.get(value.span()).unwrap_or_default()
    }

    fn duration(&self, text: Option<&Spanned<String>>) -> Result<Option<Duration>, Mistake> {
        let Some(text) = text else { return Ok(None) };
        match parse_duration(text.as_ref()) {
            Ok(duration) => Ok(Some(duration)),
            Err(error) => self.refuse(text, error.to_string()),
        }
    }

    fn traffic(&self, table: &TomlTable) -> Result<TrafficSpec, Mistake> {
        let word = *table.kind.as_ref();
        self.keys(table, word)?;
        Ok(TrafficSpec { kind: self.kind(table, word)?, amount: self.amount(table, word)? })
    }

    /// Rejects keys of other kinds.
    fn keys(&self, table: &TomlTable, word: Word) -> Result<(), Mistake> {
        let given = [
            ("close", table.close.as_ref().map(Spanned::span)),
            ("lost", table.lost.as_ref().map(Spanned::span)),
            ("answer", table.answer.as_ref().map(Spanned::span)),
            ("to", table.to.as_ref().map(Spanned::span)),
            ("of", table.of.as_ref().map(Spanned::span)),
        ];
        for (key, span) in given {
            if let Some(span) = span.filter(|_| word.own_key() != Some(key)) {
                let meant = word.own_key().map(|key| format!(", which takes `{key}`")).unwrap_or_default();
                let what = format!("`{key}` does not apply to kind {}{meant}", self.spelled(&table.kind));
                return Err(Mistake::at(self.text, span.start, what));
            }
        }
        Ok(())
    }

    fn kind(&self, table: &TomlTable, word: Word) -> Result<TrafficKind, Mistake> {
        Ok(match word {
            Word::Handshakes => TrafficKind::Handshakes(value(table.close.as_ref())),
            Word::Refused => TrafficKind::Refused,
            Word::Filtered => TrafficKind::Filtered,
            Word::Unreachable => TrafficKind::Unreachable,
            Word::NoAck => TrafficKind::NoAck,
            Word::SynScan => TrafficKind::SynScan,
            Word::Retransmitting => TrafficKind::Retransmitting(value(table.lost.as_ref())),
            Word::Slow => TrafficKind::Slow,
            Word::AcceptQueueOverflow => TrafficKind::AcceptQueueOverflow,
            Word::AcceptQueueFull => TrafficKind::AcceptQueueFull,
            Word::Udp => match &table.answer {
                Some(answer) => TrafficKind::Udp(*answer.as_ref()),
                None => {
                    return self
                        .refuse(&table.kind, "udp needs `answer`: \"echo\", \"silence\" or \"closed\"");
                }
            },
            Word::SynFlood => TrafficKind::SynFlood(value(table.to.as_ref())),
            Word::Flood => match &table.of {
                Some(of) => TrafficKind::Flood(*of.as_ref()),
                None => {
                    return self.refuse(
                        &table.kind,
                        "flood needs `of`: \"ack\", \"udp\", \"udp_answered\", \"held\", \"scan\" or \"crawl\"",
                    );
                }
            },
        })
    }

    fn amount(&self, table: &TomlTable, word: Word) -> Result<Amount, Mistake> {
        let floods = matches!(word, Word::SynFlood | Word::Flood);
        match (&table.count, &table.rate) {
            (Some(count), _) if floods => {
                self.refuse(count, "a flood has a `rate`, or none for as fast as possible")
            }
            (Some(_), Some(rate)) => {
                self.refuse(rate, "`count` (at once) and `rate` (per second) exclude each other")
            }
            (Some(count), None) => self.count(count, word),
            (None, Some(rate)) if word.has_no_rate() => {
                self.refuse(rate, format!("kind {} has a `count` and no `rate`", self.spelled(&table.kind)))
            }
            (None, Some(rate)) if *rate.as_ref() == 0 => self.refuse(rate, "a rate of 0 is no traffic"),
            (None, Some(rate)) => Ok(Amount::Rate(*rate.as_ref())),
            (None, None) if floods => Ok(Amount::Unlimited),
            (None, None) => self.refuse(
                &table.kind,
                "the amount is missing: `count = 20` (at once) or `rate = 100` (per second)",
            ),
        }
    }

    fn count(&self, count: &Spanned<u32>, word: Word) -> Result<Amount, Mistake> {
        let most = match word {
            Word::Slow | Word::AcceptQueueOverflow => MOST_SLOW,
            Word::Unreachable => MOST_ERRORS,
            Word::Retransmitting => 100,
            Word::AcceptQueueFull | Word::NoAck => 200,
            Word::Handshakes
            | Word::Refused
            | Word::Filtered
            | Word::SynScan
            | Word::Udp
            | Word::SynFlood
            | Word::Flood => 500,
        };
        match *count.as_ref() {
            number if (1..=most).contains(&number) => Ok(Amount::Count(number)),
            number => self.refuse(count, format!("{number} is not in 1..={most}, the range for this kind")),
        }
    }

    /// The starts beside the traffic. Attempts that do not complete could not be told from false ones.
    fn starts(&self, file: &File, traffic: &[TrafficSpec]) -> Result<u32, Mistake> {
        let Some(starts) = &file.starts else { return Ok(0) };
        let completes = |traffic: &TrafficSpec| {
            matches!(traffic.kind, TrafficKind::Handshakes(_)) && matches!(traffic.amount, Amount::Rate(_))
        };
        if file.topology != Topology::Pair || !traffic.iter().all(completes) {
            return self.refuse(starts, "`starts` need topology = \"pair\" and handshakes at a `rate`");
        }
        Ok(*starts.as_ref())
    }

    /// Rejects kinds that cannot share one network.
    fn together(&self, file: &File, traffic: &[TrafficSpec]) -> Result<(), Mistake> {
        for table in &file.traffic {
            let word = *table.kind.as_ref();
            let alone = traffic.len() == 1 && file.family.families().len() == 1;
            if word.is_alone() && !alone {
                let kind = self.spelled(&table.kind);
                return self.refuse(
                    &table.kind,
                    format!(
                        "kind {kind} must be the only traffic, over one family: it affects the whole host"
                    ),
                );
            }
            if word == Word::Unreachable && file.topology != Topology::Routed {
                return self.refuse(&table.kind, "only a router reports that: topology = \"routed\"");
            }
            if matches!(word, Word::SynFlood | Word::Flood) && !matches!(file.family, Families::V4) {
                return self.refuse(&table.kind, "a flood uses IPv4: family = \"v4\"");
            }
            let needs_wire =
                matches!(word, Word::SynFlood | Word::Flood | Word::Slow | Word::AcceptQueueOverflow);
            if needs_wire && file.topology != Topology::Pair {
                let what = format!("kind {} needs topology = \"pair\"", self.spelled(&table.kind));
                return self.refuse(&table.kind, what);
            }
        }
        match &file.tags {
            Some(tags) if file.topology != Topology::Pair => {
                self.refuse(tags, "`tags` need topology = \"pair\"")
            }
            Some(_) | None => Ok(()),
        }
    }
}

/// The given value, or the default.
fn value<T: Copy + Default>(given: Option<&Spanned<T>>) -> T {
    given.map(|given| *given.as_ref()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "sentence = \"x\"\n";

    fn mistake(text: &str) -> String {
        parse("x", &format!("{HEAD}{text}")).expect_err(text).to_string()
    }

    #[test]
    fn a_short_file_is_a_scenario() {
        let text = "family = \"both\"\n[[traffic]]\nkind = \"udp\"\nanswer = \"echo\"\nrate = 3\n";
        let scenario = parse("few", &format!("{HEAD}{text}")).expect("a good text");
        assert_eq!((scenario.topology, scenario.families), (Topology::Pair, &FAMILIES[..]));
        assert_eq!(
            scenario.traffic,
            [TrafficSpec { kind: TrafficKind::Udp(Answer::Echo), amount: Amount::Rate(3) }]
        );
        assert_eq!(scenario.total(scenario.traffic[0]), Some(30));
        let short = scenario.short();
        assert_eq!(short.total(short.traffic[0]), Some(3));
    }

    #[test]
    fn a_mistake_has_its_line_and_a_suggestion() {
        let table: &[(&str, &str)] = &[
            ("topologie = \"pair\"\ntraffic = []", "2: unknown field `topologie`, did you mean `topology`?"),
            ("topology = \"pear\"\ntraffic = []", "2: unknown variant `pear`, did you mean `pair`?"),
            (
                "\n[[traffic]]\nkind = \"syn_flod\"",
                "4: unknown variant `syn_flod`, did you mean `syn_flood`?",
            ),
            ("[[traffic]]\nkind = \"refused\"\ncuont = 1", "4: unknown field `cuont`, did you mean `count`?"),
            (
                "[[traffic]]\nkind = \"refused\"\ncount = 1\nclose = \"rst\"",
                "5: `close` does not apply to kind \"refused\"",
            ),
            (
                "[[traffic]]\nkind = \"handshakes\"\ncount = 1\nto = \"deaf\"",
                "5: `to` does not apply to kind \"handshakes\", which takes `close`",
            ),
            ("[[traffic]]\nkind = \"udp\"\ncount = 1", "3: udp needs `answer`"),
            ("[[traffic]]\nkind = \"refused\"", "3: the amount is missing"),
            ("[[traffic]]\nkind = \"refused\"\ncount = 1\nrate = 1", "5: `count` (at once) and `rate`"),
            ("[[traffic]]\nkind = \"slow\"\nrate = 1", "4: kind \"slow\" has a `count`"),
            ("[[traffic]]\nkind = \"slow\"\ncount = 6", "4: 6 is not in 1..=5"),
            ("[[traffic]]\nkind = \"syn_flood\"\ncount = 6", "4: a flood has a `rate`"),
            ("[[traffic]]\nkind = \"flood\"\nrate = 6", "3: flood needs `of`"),
            ("[[traffic]]\nkind = \"refused\"\nrate = 0", "4: a rate of 0"),
            ("[[traffic]]\nkind = \"refused\"\ncount = -1", "4: "),
            ("[[traffic]]\nkind = \"unreachable\"\ncount = 1", "3: only a router reports that"),
            ("for = \"10\"\ntraffic = []", "2: \"10\" is not a duration"),
            ("topology = \"loopback\"\ntags = [1, 2]\ntraffic = []", "3: `tags` need"),
            (
                "[[traffic]]\nkind = \"slow\"\ncount = 1\n[[traffic]]\nkind = \"refused\"\ncount = 1",
                "3: kind \"slow\" must be the only traffic",
            ),
            ("starts = 3\n[[traffic]]\nkind = \"refused\"\nrate = 1", "2: `starts` need"),
            ("starts = 3\n[[traffic]]\nkind = \"handshakes\"\ncount = 1", "2: `starts` need"),
            ("[[traffic]\n", "2: "),
            ("", "1: missing field `traffic`"),
        ];
        for (text, expected) in table {
            let said = mistake(text);
            assert!(said.starts_with(expected), "{text:?}: {said}");
        }
    }
}
