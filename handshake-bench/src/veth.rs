//! The rows of real traffic: connections and bulk between two hosts, handshake attached at the server's end.
//!
//! ```text
//! client ── veth ── server, nothing attached      ┐
//! client ── veth ── server, empty programs        ├ take turns: the same traffic, one pair of CPUs
//! client ── veth ── server, `handshake watch`     ┘
//! ```
//!
//! handshake is the release build, started as an operator starts it, and reports once a second meanwhile. Each of the three has
//! a network of its own, so that nothing is attached or detached between turns. The client is on the first CPU and the
//! server on the second: a packet is worked on, hooks and all, where it was sent from, so a handshake whole is the first's.

mod case;
mod hooks;
mod row;
mod traffic;

use std::path::Path;

use anyhow::{Context, Result, ensure};
use handshake_lab::agent::Agent;
use handshake_lab::topology::DEVICE;
use handshake_lab::{Family, Pair, privilege};
use serde_json::Value;

use crate::cpu;
use case::Attached;
pub(crate) use case::{CASES, Case, Traffic};
use hooks::{Empty, Way};
pub(crate) use row::VethRow;
use traffic::Turn;

/// Turns of each in a round: each is first equally often.
const TURNS: usize = 9;

impl Case {
    /// Sets the networks up, lets them take turns, and sees that handshake has counted what went over its own.
    pub(crate) fn measure(self, others: &[u8], binary: &Path, rounds: u32) -> Result<VethRow> {
        let missing = privilege::missing();
        ensure!(missing.is_empty(), "{}: networks of our own need {}", self.name, missing.join(", "));
        let mut stage = Stage::set(self, others, binary).with_context(|| format!("{}: set up", self.name))?;
        let turns = stage.take_turns(rounds).with_context(|| format!("{}: traffic", self.name))?;
        stage.check().with_context(|| format!("{}: not what was measured", self.name))?;
        Ok(VethRow::of(self, &turns))
    }
}

/// Three networks with what is attached to them.
struct Stage {
    case: Case,
    cpus: [usize; 2],
    /// On the hooks as long as this lives.
    empty: Empty,
    agent: Agent,
    /// What went over handshake's network.
    made: Made,
    networks: [Pair; 3],
}

/// Traffic that handshake must have counted.
#[derive(Clone, Copy, Debug, Default)]
struct Made {
    connections: u64,
    bytes: u64,
}

impl Stage {
    fn set(case: Case, others: &[u8], binary: &Path) -> Result<Self> {
        let networks = [Pair::new()?, Pair::new()?, Pair::new()?];
        let server = |attached: Attached| &networks[attached as usize].server;
        let empty = Empty::attach(others, case.way, server(Attached::Empty))?;
        let hook = ["-i", DEVICE, "--hook", case.way.ingress()];
        let agent = Agent::start(server(Attached::Handshake), binary, &hook)?;
        let stage = Self { case, cpus: cpu::two()?, empty, agent, made: Made::default(), networks };
        stage.ensure_empty_runs()?;
        Ok(stage)
    }

    /// Fails unless a connection over the network with the empty programs runs both.
    fn ensure_empty_runs(&self) -> Result<()> {
        let path = self.networks[Attached::Empty as usize].path(Family::V4);
        self.empty.ensure_run_by(|| traffic::bulk_of(&path, self.cpus, 1).map(|_| ()))
    }

    /// What each came to in each round, in the order of [`Attached::ALL`]. Before them a round that nobody looks at.
    fn take_turns(&mut self, rounds: u32) -> Result<[Vec<Turn>; 3]> {
        let mut turns = [const { Vec::new() }; 3];
        for round in 0..=rounds {
            let sums = self.round()?;
            if round > 0 {
                turns.iter_mut().zip(sums).for_each(|(turns, sum)| turns.push(sum));
            }
        }
        Ok(turns)
    }

    /// Several turns of each.
    fn round(&mut self) -> Result<[Turn; 3]> {
        let mut sums = [Turn::default(); 3];
        for turn in 0..TURNS {
            // The order moves on from turn to turn: nobody always comes after the same.
            for place in 0..Attached::ALL.len() {
                let attached = Attached::ALL[(turn + place) % Attached::ALL.len()];
                sums[attached as usize] += self.turn(attached)?;
            }
        }
        Ok(sums)
    }

    fn turn(&mut self, attached: Attached) -> Result<Turn> {
        let path = self.networks[attached as usize].path(Family::V4);
        let (turn, made) = match self.case.traffic {
            Traffic::Connect => {
                let turn = traffic::connections(&path, self.cpus)?;
                (turn, Made { connections: turn.units, bytes: 0 })
            }
            Traffic::Bulk => {
                let turn = traffic::bulk(&path, self.cpus)?;
                (turn, Made { connections: 1, bytes: turn.units })
            }
        };
        if attached == Attached::Handshake {
            self.made.connections += made.connections;
            self.made.bytes += made.bytes;
        }
        Ok(turn)
    }

    /// Ends handshake, and fails unless its last report has all that was made.
    fn check(self) -> Result<()> {
        let outcome = self.agent.stop()?;
        ensure!(outcome.status.success(), "handshake ended with {}:\n{}", outcome.status, outcome.stderr);
        self.made.check(&outcome.report()?, self.case.way)
    }
}

impl Made {
    /// Every connection is an attempt and completed, but for segments given up because both CPUs met over one flow; the
    /// bytes came in packets; and the hooks are those that the row is about.
    fn check(self, report: &Value, way: Way) -> Result<()> {
        /// Bytes of an Ethernet packet: no segment carries more.
        const MTU: u64 = 1500;
        let number =
            |value: &Value, name: &str| value.as_u64().with_context(|| format!("no {name} in {report}"));
        let interface = &report["source"]["interfaces"][0];
        let hooks = [interface["ingress"].as_str(), interface["egress"].as_str()];
        ensure!(
            hooks == [Some(way.ingress()), Some(Way::EGRESS)],
            "handshake is on other hooks: {interface}"
        );
        let attempts = number(&report["tcp"]["attempts"], "attempts")?;
        let completed = number(&report["tcp"]["completed"], "completed")?;
        let contended = number(&report["contended"], "contended")?;
        let (made, least) = (self.connections, self.connections.saturating_sub(contended));
        ensure!(
            (least..=made).contains(&attempts) && (least..=made).contains(&completed),
            "{made} connections were made; handshake counted {attempts} attempts, {completed} completed, {contended} contended"
        );
        let packets = number(&report["packets"]["total"], "total")?;
        ensure!(packets >= self.bytes / MTU, "{} bytes in {packets} packets", self.bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn report(ingress: &str, attempts: u64, completed: u64, contended: u64, packets: u64) -> Value {
        json!({
            "source": { "kind": "live", "interfaces": [{ "name": "eth0", "ingress": ingress, "egress": "tcx" }] },
            "tcp": { "attempts": attempts, "completed": completed },
            "contended": contended, "packets": { "total": packets },
        })
    }

    #[test]
    fn connections_that_were_not_counted_are_told() {
        let made = Made { connections: 100, bytes: 0 };
        assert!(made.check(&report("tcx", 100, 100, 0, 500), Way::Tcx).is_ok());
        assert!(made.check(&report("tcx", 100, 99, 0, 500), Way::Tcx).is_err());
        assert!(made.check(&report("tcx", 99, 99, 0, 500), Way::Tcx).is_err());
        assert!(made.check(&report("tcx", 101, 100, 0, 500), Way::Tcx).is_err());
        assert!(made.check(&report("tcx", 100, 98, 2, 500), Way::Tcx).is_ok(), "given up, and said");
        assert!(made.check(&json!({}), Way::Tcx).is_err());
    }

    #[test]
    fn other_hooks_than_the_row_s_are_told() {
        let made = Made { connections: 1, bytes: 0 };
        assert!(made.check(&report("xdp-native", 1, 1, 0, 5), Way::Xdp).is_ok());
        assert!(made.check(&report("xdp-generic", 1, 1, 0, 5), Way::Xdp).is_err());
        assert!(made.check(&report("tcx", 1, 1, 0, 5), Way::Xdp).is_err());
    }

    #[test]
    fn bytes_without_packets_are_told() {
        let made = Made { connections: 1, bytes: 3_000_000 };
        assert!(made.check(&report("tcx", 1, 1, 0, 2_100), Way::Tcx).is_ok());
        assert!(made.check(&report("tcx", 1, 1, 0, 1_999), Way::Tcx).is_err());
    }
}
