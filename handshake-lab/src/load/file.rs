//! A scenario's file, key by key, and what goes with what: each mistake with its line.

use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;

use super::mistake::Mistake;
use super::scenario::{
    Amount, Answer, Close, Kind, Lost, Scenario, Target, Topology, Traffic, parse_duration,
};
use crate::family::Family;

/// How long a rate lasts when the file does not say.
const USUAL: Duration = Duration::from_secs(10);
/// While the server's device is slowed down, each SYN+ACK takes some 150 ms (IPv6: 190 ms): more of them than this
/// take longer than the second after which they are repeated.
const MOST_SLOW: u32 = 5;
/// A router sends a host so many errors at once, then one a second (`net.ipv4.route.error_burst`).
const MOST_ERRORS: u32 = 5;

/// Reads a scenario's text.
pub(super) fn parse(name: &str, text: &str) -> Result<Scenario, Mistake> {
    let file: File = toml::from_str(text).map_err(|error| Mistake::of_toml(text, &error))?;
    let judge = Judge { text };
    judge.duration(file.duration.as_ref())?;
    let traffic = file.traffic.iter().map(|table| judge.traffic(table)).collect::<Result<Vec<_>, _>>()?;
    judge.together(&file, &traffic)?;
    Ok(Scenario {
        name: name.to_owned(),
        duration: judge.duration(file.duration.as_ref())?.unwrap_or(USUAL),
        watch: judge.duration(file.watch.as_ref())?,
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

/// The file, key by key.
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
    traffic: Vec<Table>,
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
            Self::Both => &Family::ALL,
        }
    }
}

/// A table `[[traffic]]`, key by key: which of them go together is judged afterwards, so that a mistake has its line.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    kind: Spanned<Word>,
    count: Option<Spanned<u32>>,
    rate: Option<Spanned<u32>>,
    close: Option<Spanned<Close>>,
    lost: Option<Spanned<Lost>>,
    answer: Option<Spanned<Answer>>,
    to: Option<Spanned<Target>>,
}

/// The words for [`Kind`].
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
}

impl Word {
    /// The key beside `kind`, `count` and `rate` that it takes.
    const fn own_key(self) -> Option<&'static str> {
        match self {
            Self::Handshakes => Some("close"),
            Self::Retransmitting => Some("lost"),
            Self::Udp => Some("answer"),
            Self::SynFlood => Some("to"),
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

    /// Can it be made once only, or takes so long that a rate means nothing?
    const fn has_no_rate(self) -> bool {
        self.is_alone() || matches!(self, Self::Retransmitting | Self::Unreachable)
    }

    /// Does it slow a device down, or wait for a counter of the whole namespace?
    const fn is_alone(self) -> bool {
        matches!(self, Self::Slow | Self::AcceptQueueOverflow | Self::AcceptQueueFull)
    }
}

/// What goes with what. Its text is for the lines.
struct Judge<'a> {
    text: &'a str,
}

impl Judge<'_> {
    fn refuse<T, U>(&self, at: &Spanned<T>, what: impl Into<String>) -> Result<U, Mistake> {
        Err(Mistake::at(self.text, at.span().start, what.into()))
    }

    /// A value as it stands in the file.
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

    fn traffic(&self, table: &Table) -> Result<Traffic, Mistake> {
        let word = *table.kind.as_ref();
        self.keys(table, word)?;
        Ok(Traffic { kind: self.kind(table, word)?, amount: self.amount(table, word)? })
    }

    /// Refuses keys of other kinds.
    fn keys(&self, table: &Table, word: Word) -> Result<(), Mistake> {
        let given = [
            ("close", table.close.as_ref().map(Spanned::span)),
            ("lost", table.lost.as_ref().map(Spanned::span)),
            ("answer", table.answer.as_ref().map(Spanned::span)),
            ("to", table.to.as_ref().map(Spanned::span)),
        ];
        for (key, span) in given {
            if let Some(span) = span.filter(|_| word.own_key() != Some(key)) {
                let meant = word.own_key().map(|key| format!(": it takes `{key}`")).unwrap_or_default();
                let what = format!("`{key}` does not go with kind {}{meant}", self.spelled(&table.kind));
                return Err(Mistake::at(self.text, span.start, what));
            }
        }
        Ok(())
    }

    fn kind(&self, table: &Table, word: Word) -> Result<Kind, Mistake> {
        Ok(match word {
            Word::Handshakes => Kind::Handshakes(value(table.close.as_ref())),
            Word::Refused => Kind::Refused,
            Word::Filtered => Kind::Filtered,
            Word::Unreachable => Kind::Unreachable,
            Word::NoAck => Kind::NoAck,
            Word::SynScan => Kind::SynScan,
            Word::Retransmitting => Kind::Retransmitting(value(table.lost.as_ref())),
            Word::Slow => Kind::Slow,
            Word::AcceptQueueOverflow => Kind::AcceptQueueOverflow,
            Word::AcceptQueueFull => Kind::AcceptQueueFull,
            Word::Udp => match &table.answer {
                Some(answer) => Kind::Udp(*answer.as_ref()),
                None => {
                    return self
                        .refuse(&table.kind, "udp needs `answer`: \"echo\", \"silence\" or \"closed\"");
                }
            },
            Word::SynFlood => Kind::SynFlood(value(table.to.as_ref())),
        })
    }

    fn amount(&self, table: &Table, word: Word) -> Result<Amount, Mistake> {
        let floods = word == Word::SynFlood;
        match (&table.count, &table.rate) {
            (Some(count), _) if floods => {
                self.refuse(count, "a flood has a `rate`, or none: as fast as the hook takes it")
            }
            (Some(_), Some(rate)) => {
                self.refuse(rate, "`count` (at once) and `rate` (a second): one of them")
            }
            (Some(count), None) => self.count(count, word),
            (None, Some(rate)) if word.has_no_rate() => {
                self.refuse(rate, format!("kind {} has a `count`, no `rate`", self.spelled(&table.kind)))
            }
            (None, Some(rate)) if *rate.as_ref() == 0 => self.refuse(rate, "a rate of 0 is no traffic"),
            (None, Some(rate)) => Ok(Amount::Rate(*rate.as_ref())),
            (None, None) if floods => Ok(Amount::Flat),
            (None, None) => {
                self.refuse(&table.kind, "how much? `count = 20` (at once) or `rate = 100` (a second)")
            }
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
            | Word::SynFlood => 500,
        };
        match *count.as_ref() {
            number if (1..=most).contains(&number) => Ok(Amount::Count(number)),
            number => {
                self.refuse(count, format!("{number} is not in 1..={most}, what this kind can do at once"))
            }
        }
    }

    /// Refuses what cannot be on one network at one time.
    fn together(&self, file: &File, traffic: &[Traffic]) -> Result<(), Mistake> {
        for table in &file.traffic {
            let word = *table.kind.as_ref();
            let alone = traffic.len() == 1 && file.family.families().len() == 1;
            if word.is_alone() && !alone {
                let kind = self.spelled(&table.kind);
                return self.refuse(
                    &table.kind,
                    format!("kind {kind} must be alone, over one family: it has the whole host"),
                );
            }
            if word == Word::Unreachable && file.topology != Topology::Routed {
                return self.refuse(&table.kind, "it takes a router to say so: topology = \"routed\"");
            }
            if word == Word::SynFlood && !matches!(file.family, Families::V4) {
                return self.refuse(&table.kind, "a flood is over IPv4: family = \"v4\"");
            }
            let needs_wire = matches!(word, Word::SynFlood | Word::Slow | Word::AcceptQueueOverflow);
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

/// What is given, or the usual.
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
    fn a_few_lines_are_a_scenario() {
        let text = "family = \"both\"\n[[traffic]]\nkind = \"udp\"\nanswer = \"echo\"\nrate = 3\n";
        let scenario = parse("few", &format!("{HEAD}{text}")).expect("a good text");
        assert_eq!((scenario.topology, scenario.families), (Topology::Pair, &Family::ALL[..]));
        assert_eq!(scenario.traffic, [Traffic { kind: Kind::Udp(Answer::Echo), amount: Amount::Rate(3) }]);
        assert_eq!(scenario.total(scenario.traffic[0]), Some(30));
        let short = scenario.short();
        assert_eq!(short.total(short.traffic[0]), Some(3));
    }

    /// The line, and what is meant.
    #[test]
    fn a_mistake_has_its_line_and_what_is_meant() {
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
                "5: `close` does not go with kind \"refused\"",
            ),
            (
                "[[traffic]]\nkind = \"handshakes\"\ncount = 1\nto = \"deaf\"",
                "5: `to` does not go with kind \"handshakes\": it takes `close`",
            ),
            ("[[traffic]]\nkind = \"udp\"\ncount = 1", "3: udp needs `answer`"),
            ("[[traffic]]\nkind = \"refused\"", "3: how much?"),
            ("[[traffic]]\nkind = \"refused\"\ncount = 1\nrate = 1", "5: `count` (at once) and `rate`"),
            ("[[traffic]]\nkind = \"slow\"\nrate = 1", "4: kind \"slow\" has a `count`"),
            ("[[traffic]]\nkind = \"slow\"\ncount = 6", "4: 6 is not in 1..=5"),
            ("[[traffic]]\nkind = \"syn_flood\"\ncount = 6", "4: a flood has a `rate`"),
            ("[[traffic]]\nkind = \"refused\"\nrate = 0", "4: a rate of 0"),
            ("[[traffic]]\nkind = \"refused\"\ncount = -1", "4: "),
            ("[[traffic]]\nkind = \"unreachable\"\ncount = 1", "3: it takes a router"),
            ("for = \"10\"\ntraffic = []", "2: \"10\" is no duration"),
            ("topology = \"loopback\"\ntags = [1, 2]\ntraffic = []", "3: `tags` need"),
            (
                "[[traffic]]\nkind = \"slow\"\ncount = 1\n[[traffic]]\nkind = \"refused\"\ncount = 1",
                "3: kind \"slow\" must be alone",
            ),
            ("[[traffic]\n", "2: "),
            ("", "1: missing field `traffic`"),
        ];
        for (text, expected) in table {
            let said = mistake(text);
            assert!(said.starts_with(expected), "{text:?}: {said}");
        }
    }
}
