//! A scenario, and where there are some. Knows no network and makes no traffic.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::family::Family;

/// How long it lasts in the short form.
const SHORT: Duration = Duration::from_secs(1);

/// A scenario: a network, traffic on it, and what `handshake check` is asked.
#[derive(Debug)]
pub struct Scenario {
    /// The file's name without `.toml`.
    pub name: String,
    /// What happens, in a sentence.
    pub sentence: String,
    pub(super) topology: Topology,
    pub(super) families: &'static [Family],
    /// How long rates last.
    pub duration: Duration,
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
    #[must_use]
    pub fn is_soak(&self) -> bool {
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

/// `500ms`, `10s`, `30m`.
///
/// # Errors
/// There is no number, or no such unit.
pub fn parse_duration(text: &str) -> Result<Duration> {
    let fault = || format!("{text:?} is no duration: a number and ms, s, m or h");
    let duration = humantime::parse_duration(text).with_context(fault)?;
    ensure!(!duration.is_zero(), "{text:?} is no duration that can pass");
    Ok(duration)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit() {
        for (text, expected) in
            [("500ms", 500), ("10s", 10_000), ("30m", 1_800_000), ("1h", 3_600_000), ("1.5s", 1_500)]
        {
            assert_eq!(parse_duration(text).expect(text), Duration::from_millis(expected));
        }
        for text in ["", "10", "s", "0s", "1.5", "-1s", "99999999999999999999h", "9999999999999999999h"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }
}
