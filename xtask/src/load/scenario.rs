//! What a scenario's file says. Reads TOML and judges it; knows no network and makes no traffic.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use toml::Spanned;

use super::mistake::{self, Mistake};
use crate::lab::Family;

/// How long a rate lasts when the file does not say.
const USUAL: Duration = Duration::from_secs(10);
/// How long it lasts in the short form.
const SHORT: Duration = Duration::from_secs(1);
/// While the server's device is slowed down, each SYN+ACK takes some 150 ms (IPv6: 190 ms): more of them than this
/// take longer than the second after which they are repeated.
const MOST_SLOW: u32 = 5;
/// A router sends a host so many errors at once, then one a second (`net.ipv4.route.error_burst`).
const MOST_ERRORS: u32 = 5;

/// A scenario: a network, traffic on it, and what `handshake check` is asked.
#[derive(Debug)]
pub struct Scenario {
    /// The file's name without `.toml`.
    pub name: String,
    /// What happens, in a sentence.
    pub sentence: String,
    pub(super) topology: Topology,
    pub(super) families: &'static [Family],
    pub(super) duration: Duration,
    /// VLAN numbers that the client's and the server's frames carry.
    pub(super) tags: Option<[u16; 2]>,
    /// Options of `handshake check`.
    pub(super) check: Vec<String>,
    pub(super) expect: Vec<String>,
    /// How `handshake check` must end; without it as its report says.
    pub(super) exit: Option<i32>,
    /// Between two reports of the `handshake watch` beside it.
    pub(super) watch: Option<Duration>,
    pub(super) traffic: Vec<Traffic>,
}

/// The networks of the lab.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Topology {
    Loopback,
    #[default]
    Pair,
    Routed,
}

/// One kind of traffic, and how much of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Traffic {
    pub(super) kind: Kind,
    pub(super) amount: Amount,
}

/// What happens to each attempt or flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Connect, talk, close.
    Handshakes(Close),
    /// Connect to a port that nobody listens on.
    Refused,
    /// Connect to a listener behind a filter that drops.
    Filtered,
    /// Connect where the router has no way to.
    Unreachable,
    /// SYNs from addresses that nobody has: no ACK.
    NoAck,
    /// SYNs that are taken back by RST once they are answered.
    SynScan,
    /// The first SYN or SYN+ACK is lost.
    Retransmitting(Lost),
    /// SYN+ACKs one behind the other on a slow link.
    Slow,
    /// An accept queue that fills while ACKs are on their way.
    AcceptQueueOverflow,
    /// An accept queue that is full before the SYNs come.
    AcceptQueueFull,
    /// Datagrams.
    Udp(Answer),
    /// SYNs, each from an end of its own, as a driver gets them.
    SynFlood(Target),
}

/// How connections are closed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Close {
    #[default]
    Fin,
    Rst,
    /// Not before the end.
    Never,
}

/// Which segment gets lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Lost {
    #[default]
    Syn,
    SynAck,
}

/// What a datagram meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Answer {
    Echo,
    Silence,
    Closed,
}

/// What a flood meets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Target {
    /// A listener that hears nothing: no SYN+ACK.
    #[default]
    Deaf,
    /// A listener that answers each by a SYN cookie: no ACK.
    Listener,
}

/// How much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Amount {
    /// So many at once.
    Count(u32),
    /// So many a second.
    Rate(u32),
    /// What the hook takes.
    Flat,
}

impl Scenario {
    /// Reads the scenario of this name (of the folder `scenarios`), or the file at this path.
    ///
    /// # Errors
    /// There is none, or its text is not right: the message has the file, the line and what is meant.
    pub fn find(word: &str) -> Result<Self> {
        let file = if Path::new(word).extension().is_some_and(|extension| extension == "toml") {
            PathBuf::from(word)
        } else {
            folder().join(word).with_extension("toml")
        };
        if !file.is_file() {
            let names = names()?;
            let near = mistake::nearest(word, names.iter().map(String::as_str));
            let near = near.map(|name| format!("; did you mean {name}?")).unwrap_or_default();
            bail!("no scenario {word}{near} There are {}", names.join(", "));
        }
        let text = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
        let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Self::parse(&name, &text).map_err(|fault| anyhow::anyhow!("{}:{fault}", file.display()))
    }

    /// All scenarios of the folder, by name.
    ///
    /// # Errors
    /// As [`Scenario::find`].
    pub fn all() -> Result<Vec<Self>> {
        names()?.iter().map(|name| Self::find(name)).collect()
    }

    /// Reads a scenario's text.
    fn parse(name: &str, text: &str) -> Result<Self, Mistake> {
        let file: File = toml::from_str(text).map_err(|error| Mistake::of_toml(text, &error))?;
        let judge = Judge { text };
        judge.duration(file.duration.as_ref())?;
        let traffic = file.traffic.iter().map(|table| judge.traffic(table)).collect::<Result<Vec<_>, _>>()?;
        judge.together(&file, &traffic)?;
        Ok(Self {
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

    /// The form that the test suite runs: rates last a second.
    #[must_use]
    pub fn short(self) -> Self {
        self.lasting(SHORT)
    }

    /// With rates that last so long.
    #[must_use]
    pub fn lasting(self, duration: Duration) -> Self {
        Self { duration, ..self }
    }

    /// Is it for a long time?
    pub(super) fn is_soak(&self) -> bool {
        self.watch.is_some()
    }

    /// What a flood meets, if there is one.
    pub(super) fn flood(&self) -> Option<Target> {
        self.traffic.iter().find_map(|traffic| match traffic.kind {
            Kind::SynFlood(target) => Some(target),
            Kind::Handshakes(_)
            | Kind::Refused
            | Kind::Filtered
            | Kind::Unreachable
            | Kind::NoAck
            | Kind::SynScan
            | Kind::Retransmitting(_)
            | Kind::Slow
            | Kind::AcceptQueueOverflow
            | Kind::AcceptQueueFull
            | Kind::Udp(_) => None,
        })
    }

    /// What its traffic comes to in all, one family; `None` when nobody knows before.
    pub(super) fn total(&self, traffic: Traffic) -> Option<u64> {
        match traffic.amount {
            Amount::Count(count) => Some(count.into()),
            Amount::Rate(rate) => Some(due(rate, self.duration)),
            Amount::Flat => None,
        }
    }
}

/// What a rate comes to by `elapsed`.
pub(super) fn due(rate: u32, elapsed: Duration) -> u64 {
    let due = u128::from(rate) * elapsed.as_millis() / 1000;
    u64::try_from(due).unwrap_or(u64::MAX)
}

/// Where the scenarios are.
fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios")
}

/// Their names, in alphabetical order.
fn names() -> Result<Vec<String>> {
    let entries = fs::read_dir(folder()).context("read the folder of scenarios")?;
    let files = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let files = files.filter(|path| path.extension().is_some_and(|extension| extension == "toml"));
    let mut names: Vec<String> =
        files.filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned())).collect();
    names.sort_unstable();
    Ok(names)
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

/// `500ms`, `10s`, `30m`.
///
/// # Errors
/// There is no number, or no such unit.
pub(super) fn parse_duration(text: &str) -> Result<Duration> {
    let digits = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let milliseconds: u64 = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => bail!("{text:?} is no duration: a number and ms, s, m or h"),
    };
    let number: u64 = number.parse().with_context(|| format!("{text:?} is no duration"))?;
    let all = number.checked_mul(milliseconds).filter(|all| *all > 0);
    all.map(Duration::from_millis).with_context(|| format!("{text:?} is no duration that can pass"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "sentence = \"x\"\n";

    fn mistake(text: &str) -> String {
        Scenario::parse("x", &format!("{HEAD}{text}")).expect_err(text).to_string()
    }

    #[test]
    fn every_scenario_of_the_folder_is_read() -> Result<()> {
        let all = Scenario::all()?;
        assert!(all.len() > 10, "{} scenarios", all.len());
        assert!(all.iter().all(|scenario| scenario.sentence.ends_with('.')));
        Ok(())
    }

    #[test]
    fn a_few_lines_are_a_scenario() {
        let text = "family = \"both\"\n[[traffic]]\nkind = \"udp\"\nanswer = \"echo\"\nrate = 3\n";
        let scenario = Scenario::parse("few", &format!("{HEAD}{text}")).expect("a good text");
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

    #[test]
    fn a_name_that_is_close_is_named() {
        let said = Scenario::find("hanshakes").expect_err("no such scenario").to_string();
        assert!(said.contains("did you mean handshakes?"), "{said}");
    }

    #[test]
    fn durations_have_a_unit() {
        for (text, expected) in [("500ms", 500), ("10s", 10_000), ("30m", 1_800_000), ("1h", 3_600_000)] {
            assert_eq!(parse_duration(text).expect(text), Duration::from_millis(expected));
        }
        for text in ["", "10", "s", "0s", "1.5s", "-1s", "99999999999999999999h", "9999999999999999999h"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }
}
