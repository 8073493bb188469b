//! The rows with real traffic: connections and bulk data between two hosts, with handshake attached at the
//! server's end.
//!
//! ```text
//! client ── veth ── server, nothing attached      ┐
//! client ── veth ── server, empty programs        ├ take turns: the same traffic, one pair of CPUs
//! client ── veth ── server, `handshake watch`     ┘
//! ```
//!
//! handshake is the release build, started as an operator starts it, and reports once per second during the
//! turns. Each of the three has its own network, so that nothing is attached or detached between turns. The
//! client runs on the first CPU and the server on the second. A packet is processed, hooks included, on the
//! CPU that sent it, so the packets of a whole handshake cost the first CPU.

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
use case::VethAttachment;
pub(crate) use case::{CASES, VethCase, VethTraffic};
use hooks::{Empty, VethHook};
pub(crate) use row::VethRow;
use traffic::Turn;

/// Turns of each network in a round: each is first equally often.
const TURNS: usize = 9;

impl VethCase {
    /// Sets the networks up, lets them take turns, and checks that handshake has counted the traffic of its
    /// own network.
    pub(crate) fn measure(self, others: &[u8], binary: &Path, rounds: u32) -> Result<VethRow> {
        let missing = privilege::missing();
        ensure!(missing.is_empty(), "{}: namespaces need {}", self.name, missing.join(", "));
        let mut stage =
            VethStage::set(self, others, binary).with_context(|| format!("{}: set up", self.name))?;
        let turns = stage.take_turns(rounds).with_context(|| format!("{}: traffic", self.name))?;
        stage.check().with_context(|| format!("{}: check handshake's report", self.name))?;
        Ok(VethRow::of(self, &turns))
    }
}

/// Three networks with their attachments.
struct VethStage {
    case: VethCase,
    cpus: [usize; 2],
    /// The empty programs; attached until this is dropped.
    empty: Empty,
    agent: Agent,
    /// The traffic sent over handshake's network.
    sent: SentTraffic,
    networks: [Pair; 3],
}

/// Sent traffic, which handshake must have counted.
#[derive(Clone, Copy, Debug, Default)]
struct SentTraffic {
    connections: u64,
    bytes: u64,
}

impl VethStage {
    fn set(case: VethCase, others: &[u8], binary: &Path) -> Result<Self> {
        let networks = [Pair::new()?, Pair::new()?, Pair::new()?];
        let server = |attached: VethAttachment| &networks[attached as usize].server;
        let empty = Empty::attach(others, case.hook, server(VethAttachment::Empty))?;
        let hook = ["-i", DEVICE, "--hook", case.hook.ingress()];
        let agent = Agent::start(server(VethAttachment::Handshake), binary, &hook)?;
        let stage = Self { case, cpus: cpu::two()?, empty, agent, sent: SentTraffic::default(), networks };
        stage.ensure_empty_runs()?;
        Ok(stage)
    }

    /// Fails unless a connection over the network with the empty programs runs both of them.
    fn ensure_empty_runs(&self) -> Result<()> {
        let path = self.networks[VethAttachment::Empty as usize].path(Family::V4);
        self.empty.ensure_run_by(|| traffic::bulk_of(&path, self.cpus, 1).map(|_| ()))
    }

    /// The sums of each network in each round, in the order of [`VethAttachment::ALL`]. A round before them
    /// is discarded.
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

    /// One round: several turns of each network.
    fn round(&mut self) -> Result<[Turn; 3]> {
        let mut sums = [Turn::default(); 3];
        for turn in 0..TURNS {
            // The order rotates from turn to turn, so that no network always follows the same one.
            for place in 0..VethAttachment::ALL.len() {
                let attached = VethAttachment::ALL[(turn + place) % VethAttachment::ALL.len()];
                sums[attached as usize] += self.turn(attached)?;
            }
        }
        Ok(sums)
    }

    fn turn(&mut self, attached: VethAttachment) -> Result<Turn> {
        let path = self.networks[attached as usize].path(Family::V4);
        let (turn, sent) = match self.case.traffic {
            VethTraffic::Connect => {
                let turn = traffic::connections(&path, self.cpus)?;
                (turn, SentTraffic { connections: turn.units, bytes: 0 })
            }
            VethTraffic::Bulk => {
                let turn = traffic::bulk(&path, self.cpus)?;
                (turn, SentTraffic { connections: 1, bytes: turn.units })
            }
        };
        if attached == VethAttachment::Handshake {
            self.sent.connections += sent.connections;
            self.sent.bytes += sent.bytes;
        }
        Ok(turn)
    }

    /// Ends handshake, and fails unless its last report contains all sent traffic.
    fn check(self) -> Result<()> {
        let outcome = self.agent.stop()?;
        ensure!(outcome.status.success(), "handshake ended with {}:\n{}", outcome.status, outcome.stderr);
        self.sent.check(&outcome.report()?, self.case.hook)
    }
}

impl SentTraffic {
    /// Fails unless the report fits the traffic. Every connection is an attempt and completed, except for
    /// segments that were given up because both CPUs met over one flow; the bytes came in packets; and the
    /// hooks are the row's.
    fn check(self, report: &Value, hook: VethHook) -> Result<()> {
        /// The bytes of an Ethernet packet: no segment carries more.
        const MTU: u64 = 1500;
        let number =
            |value: &Value, name: &str| value.as_u64().with_context(|| format!("no {name} in {report}"));
        let interface = &report["source"]["interfaces"][0];
        let hooks = [interface["ingress"].as_str(), interface["egress"].as_str()];
        ensure!(
            hooks == [Some(hook.ingress()), Some(VethHook::EGRESS)],
            "handshake is on other hooks: {interface}"
        );
        let attempts = number(&report["tcp"]["attempts"], "attempts")?;
        let completed = number(&report["tcp"]["completed"], "completed")?;
        let contended = number(&report["contended"], "contended")?;
        let (sent, least) = (self.connections, self.connections.saturating_sub(contended));
        ensure!(
            (least..=sent).contains(&attempts) && (least..=sent).contains(&completed),
            "{sent} connections were made; handshake counted {attempts} attempts, {completed} completed, {contended} contended"
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
    fn connections_missing_from_the_report_are_errors() {
        let sent = SentTraffic { connections: 100, bytes: 0 };
        assert!(sent.check(&report("tcx", 100, 100, 0, 500), VethHook::Tcx).is_ok());
        assert!(sent.check(&report("tcx", 100, 99, 0, 500), VethHook::Tcx).is_err());
        assert!(sent.check(&report("tcx", 99, 99, 0, 500), VethHook::Tcx).is_err());
        assert!(sent.check(&report("tcx", 101, 100, 0, 500), VethHook::Tcx).is_err());
        assert!(
            sent.check(&report("tcx", 100, 98, 2, 500), VethHook::Tcx).is_ok(),
            "contended segments are reported"
        );
        assert!(sent.check(&json!({}), VethHook::Tcx).is_err());
    }

    #[test]
    fn hooks_other_than_the_row_s_are_errors() {
        let sent = SentTraffic { connections: 1, bytes: 0 };
        assert!(sent.check(&report("xdp-native", 1, 1, 0, 5), VethHook::Xdp).is_ok());
        assert!(sent.check(&report("xdp-generic", 1, 1, 0, 5), VethHook::Xdp).is_err());
        assert!(sent.check(&report("tcx", 1, 1, 0, 5), VethHook::Xdp).is_err());
    }

    #[test]
    fn bytes_without_packets_are_errors() {
        let sent = SentTraffic { connections: 1, bytes: 3_000_000 };
        assert!(sent.check(&report("tcx", 1, 1, 0, 2_100), VethHook::Tcx).is_ok());
        assert!(sent.check(&report("tcx", 1, 1, 0, 1_999), VethHook::Tcx).is_err());
    }
}
