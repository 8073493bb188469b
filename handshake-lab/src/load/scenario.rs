//! The data of a scenario. Creates no network and no traffic.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::Family;

/// Duration of rates in the short form.
const SHORT: Duration = Duration::from_secs(1);
/// Starts in the short form: each hook at each end.
const FEW_STARTS: u32 = 4;

/// A scenario: a network, traffic on it, and the options of `handshake check`.
#[derive(Debug)]
pub struct Scenario {
    /// The file's name without `.toml`.
    pub name: String,
    /// A one-sentence description.
    pub sentence: String,
    pub(super) topology: Topology,
    pub(super) families: &'static [Family],
    /// Duration of rates.
    pub duration: Duration,
    /// VLAN numbers of the client's and the server's frames.
    pub(super) tags: Option<[u16; 2]>,
    /// Additional options of `handshake check`.
    pub(super) check: Vec<String>,
    pub(super) expect: Vec<String>,
    /// The expected exit code of `handshake check`; without it the code follows from the report.
    pub(super) exit: Option<i32>,
    /// Interval of the `handshake watch` that runs beside it; `None` without one.
    pub(super) watch: Option<Duration>,
    /// How often a `handshake watch` starts beside the traffic, at either end in turn.
    pub(super) starts: u32,
    pub(super) traffic: Vec<TrafficSpec>,
}

/// The lab's networks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Topology {
    Loopback,
    #[default]
    Pair,
    Routed,
}

/// One kind of traffic, and its amount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TrafficSpec {
    pub(super) kind: TrafficKind,
    pub(super) amount: Amount,
}

/// The kind of traffic: what happens to each attempt or flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TrafficKind {
    /// Connect, transfer data, close.
    Handshakes(Close),
    /// Connect to a port without a listener.
    Refused,
    /// Connect to a listener behind a filter that drops.
    Filtered,
    /// Connect to an address that the router has no route to.
    Unreachable,
    /// SYNs from unassigned addresses: no ACK.
    NoAck,
    /// SYNs whose SYN+ACK is answered by RST.
    SynScan,
    /// The first SYN or SYN+ACK is lost.
    Retransmitting(LostSegment),
    /// SYN+ACKs that queue on a slow link.
    Slow,
    /// An accept queue that fills while ACKs are in flight.
    AcceptQueueOverflow,
    /// An accept queue that is full before the SYNs arrive.
    AcceptQueueFull,
    /// UDP datagrams.
    Udp(Answer),
    /// SYNs from many clients, sent as live frames to the driver.
    SynFlood(TrafficTarget),
    /// Other frames of many clients, or to many servers, sent likewise. What becomes of them is not compared: the
    /// handshakes beside them are.
    Flood(FloodOf),
}

/// What a flood is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum FloodOf {
    /// ACKs of unknown connections.
    Ack,
    /// Datagrams to a socket that answers none.
    Udp,
    /// Queries and answers.
    UdpAnswered,
    /// Handshakes that complete and stay open.
    Held,
    /// SYNs to closed ports.
    Scan,
    /// Handshakes with far servers.
    Crawl,
}

/// The way connections are closed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Close {
    #[default]
    Fin,
    Rst,
    /// Open until the end of the run.
    Never,
}

/// The segment that is lost the first time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum LostSegment {
    #[default]
    Syn,
    SynAck,
}

/// The response to a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Answer {
    Echo,
    Silence,
    Closed,
}

/// The target of a flood.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum TrafficTarget {
    /// A listener behind a filter that drops: no SYN+ACK.
    #[default]
    Deaf,
    /// A listener that answers each SYN with a SYN cookie: no ACK.
    Listener,
}

/// The amount of traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Amount {
    /// A number of attempts or flows at once.
    Count(u32),
    /// A rate per second.
    Rate(u32),
    /// As many as the hook can process.
    Unlimited,
}

impl Scenario {
    /// The short form that the test suite runs: rates last a second, and starts are few.
    #[must_use]
    pub fn short(self) -> Self {
        Self { starts: self.starts.min(FEW_STARTS), ..self.lasting(SHORT) }
    }

    /// The scenario with rates that last for `duration`.
    #[must_use]
    pub fn lasting(self, duration: Duration) -> Self {
        Self { duration, ..self }
    }

    /// Whether the scenario is meant to run for a long time.
    #[must_use]
    pub fn is_soak(&self) -> bool {
        self.watch.is_some()
    }

    /// The target of the flood of SYNs, if there is one.
    pub(super) fn flood(&self) -> Option<TrafficTarget> {
        self.kinds()
            .find_map(|kind| if let TrafficKind::SynFlood(target) = kind { Some(target) } else { None })
    }

    /// What floods beside the handshakes, if not SYNs to one listener.
    pub(super) fn other_flood(&self) -> Option<FloodOf> {
        self.kinds().find_map(|kind| if let TrafficKind::Flood(of) = kind { Some(of) } else { None })
    }

    fn kinds(&self) -> impl Iterator<Item = TrafficKind> + '_ {
        self.traffic.iter().map(|traffic| traffic.kind)
    }

    /// Whether frames of a flood are made.
    pub(super) fn floods(&self) -> bool {
        self.flood().is_some() || self.other_flood().is_some()
    }

    /// The total number of attempts or flows of a traffic, per family; `None` if it is not known beforehand.
    pub(super) fn total(&self, traffic: TrafficSpec) -> Option<u64> {
        match traffic.amount {
            Amount::Count(count) => Some(count.into()),
            Amount::Rate(rate) => Some(due(rate, self.duration)),
            Amount::Unlimited => None,
        }
    }
}

/// The number due at `rate` per second after `elapsed`.
pub(super) fn due(rate: u32, elapsed: Duration) -> u64 {
    let due = u128::from(rate) * elapsed.as_millis() / 1000;
    u64::try_from(due).unwrap_or(u64::MAX)
}

/// Parses a duration: `500ms`, `10s`, `30m`, `1h`.
///
/// # Errors
/// The number or the unit is missing or unknown, or the duration is zero.
pub fn parse_duration(text: &str) -> Result<Duration> {
    let fault = || format!("{text:?} is not a duration: use a number and ms, s, m or h");
    let duration = humantime::parse_duration(text).with_context(fault)?;
    ensure!(!duration.is_zero(), "{text:?} is not a possible duration");
    Ok(duration)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit() {
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
