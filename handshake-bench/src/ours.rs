//! handshake as the agent loads it, without an interface to attach to, and what it has counted.

use std::time::Duration;

use anyhow::Result;
use aya::programs::ProgramFd;
use handshake_agent::address::PortRange;
use handshake_agent::options::{Filter, Rules};
use handshake_agent::session::OBJECT;
use handshake_agent::source::Source;
use handshake_agent::source::live::Live;
use handshake_agent::source::settings::{Settings, Sizes, WatchedInterface};
use handshake_common::record::{Detail, State};

use crate::counts::Counts;
use crate::hook::{Hook, Subject};
use crate::programs::{descriptor, load, run};

/// The interface of a test run's packets: the loopback device.
const LOOPBACK: WatchedInterface = WatchedInterface { index: 1, raw: false };
/// No flow grows idle within a row.
const NEVER: Duration = Duration::MAX;

/// How a row wants handshake to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup {
    /// Flows that the tables have room for.
    pub(crate) max_flows: u32,
    /// Only flows with this port are wanted; without one, all.
    pub(crate) port: Option<u16>,
    /// When an attempt is half-open; without it, when the agent says so by default.
    pub(crate) half_open_after: Option<Duration>,
}

impl Setup {
    /// Slots that the agent makes of so many flows, over IPv4.
    pub(crate) fn slots(self) -> u32 {
        Sizes::for_flows(self.max_flows).slots4
    }

    fn settings(self) -> Settings {
        let rules = Rules { udp_idle: NEVER, idle_after: NEVER, ..Rules::default() };
        let half_open_after = self.half_open_after.unwrap_or(rules.half_open_after);
        let ports = self.port.map(|port| PortRange { first: port, last: port });
        Settings {
            interfaces: vec![LOOPBACK],
            rules: Rules { half_open_after, ..rules },
            filter: Filter { ports: ports.into_iter().collect(), nets: Vec::new() },
            max_flows: self.max_flows,
            ..Settings::default()
        }
    }
}

/// handshake, loaded.
pub(crate) struct Ours {
    live: Live,
}

/// What the tables hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Records of completed connections.
    pub(crate) established: u64,
    /// Packets of class ack that all records together have counted.
    pub(crate) acks: u64,
}

impl Ours {
    /// Has the agent create, fill and freeze the maps, and loads `programs`.
    pub(crate) fn load(setup: Setup, programs: &[&str]) -> Result<Self> {
        let mut live = Live::load(OBJECT, &setup.settings())?;
        for name in programs {
            load(live.programs(), name)?;
        }
        Ok(Self { live })
    }

    /// Runs the hook's program on a frame; ns a run.
    pub(crate) fn run(&mut self, hook: Hook, frame: &[u8], repeat: u32) -> Result<f64> {
        run(self.live.programs(), hook, hook.program(Subject::Ours), frame, repeat)
    }

    /// The hook's program, to be walked.
    pub(crate) fn descriptor(&mut self, hook: Hook) -> Result<ProgramFd> {
        descriptor(self.live.programs(), hook.program(Subject::Ours))
    }

    /// Reads the counters.
    pub(crate) fn counts(&mut self) -> Result<Counts> {
        let reading = self.live.read()?;
        let [loopback] = &reading.classes[..] else { anyhow::bail!("classes of other interfaces") };
        Ok(Counts { words: reading.counters.words, classes: loopback.packets })
    }

    /// Goes through the tables.
    pub(crate) fn tally(&self) -> Tally {
        let mut tally = Tally::default();
        self.live.for_each_record(&mut |record| {
            tally.established += u64::from(record.state == State::Established);
            if let Detail::Tcp(tcp) = record.detail {
                tally.acks += u64::from(tcp.ack);
            }
        });
        tally
    }

    /// What the agent takes its snapshots of.
    pub(crate) fn source(&mut self) -> &mut Live {
        &mut self.live
    }
}
