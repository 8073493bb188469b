//! handshake as the agent loads it, without an interface to attach to, and its counters.

use std::time::Duration;

use anyhow::{Context, Result};
use aya::programs::tc::TcAttachType;
use aya::programs::{ProgramFd, SchedClassifier};
use handshake_agent::address::PortRange;
use handshake_agent::load;
use handshake_agent::options::{Filter, Rules};
use handshake_agent::session::object;
use handshake_agent::source::Source;
use handshake_agent::source::live::{KernelSide as _, Live};
use handshake_agent::source::settings::{Settings, Sizes, WatchedInterface};
use handshake_common::record::{Detail, State};
use handshake_lab::bpf;
use handshake_lab::topology::DEVICE;

use crate::counts::CounterValues;
use crate::hook::{BenchHook, Subject};
use crate::programs::{descriptor, run};

/// The interface of packets in test runs: the loopback device.
pub(crate) const LOOPBACK: WatchedInterface = WatchedInterface { index: 1, group: 0, raw: false };
/// No flow becomes idle during a row.
const NEVER: Duration = Duration::MAX;

/// The configuration of handshake for a row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup {
    /// The number of flows that the tables have room for.
    pub(crate) max_flows: u32,
    /// The port filter; `None`: all flows are tracked.
    pub(crate) port: Option<u16>,
    /// The age at which an attempt is half-open; `None`: the agent's default.
    pub(crate) half_open_after: Option<Duration>,
}

impl Setup {
    /// The number of IPv4 slots that the agent makes for `max_flows`.
    pub(crate) fn slots(self) -> u32 {
        Sizes::for_flows(self.max_flows).slots4
    }

    /// What the agent is told.
    pub(crate) fn settings(self) -> Settings {
        let rules = Rules { udp_idle: NEVER, idle_after: NEVER, ..Rules::default() };
        let half_open_after = self.half_open_after.unwrap_or(rules.half_open_after);
        let ports = self.port.map(|port| PortRange { first: port, last: port });
        Settings {
            rules: Rules { half_open_after, ..rules },
            filter: Filter { ports: ports.into_iter().collect(), nets: Vec::new() },
            max_flows: self.max_flows,
            ..Settings::default()
        }
    }
}

/// handshake's loaded programs and maps.
pub(crate) struct Ours {
    live: Live,
}

/// Sums over the records in the tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RecordTotals {
    /// The number of records in state ESTABLISHED.
    pub(crate) established: u64,
    /// The number of packets of class ack, summed over all records.
    pub(crate) acks: u64,
}

impl Ours {
    /// Loads the program of outgoing packets for an interface of the present namespace, with or without the owners of
    /// attempts, and attaches it there.
    pub(crate) fn attach_egress(setup: Setup, interface: WatchedInterface, owners: bool) -> Result<Self> {
        let name = BenchHook::Tc.program(Subject::Ours);
        let settings = Settings { owners, ..setup.settings() };
        let mut live = Live::load(&object()?, &settings)?;
        load::program(live.programs(), name)?;
        let number = live.enter(interface)?;
        live.set_gate(number, true)?;
        let program: &mut SchedClassifier =
            live.programs().program_mut(name).context("no program")?.try_into()?;
        program.attach(DEVICE, TcAttachType::Egress).context("attach the program")?;
        Ok(Self { live })
    }

    /// What the kernel says of the program that [`attach_egress`](Self::attach_egress) has attached.
    pub(crate) fn attached(&mut self) -> Result<bpf::ProgramInfo> {
        let program = self.live.programs().program(BenchHook::Tc.program(Subject::Ours));
        bpf::program(program.context("no program")?.info()?.id())
    }

    /// Lets the agent create, fill and freeze the maps, and loads `programs`.
    pub(crate) fn load(setup: Setup, programs: &[&str]) -> Result<Self> {
        Self::load_among(setup, programs, 0)
    }

    /// The same, with so many interfaces before the one of the packets.
    pub(crate) fn load_among(setup: Setup, programs: &[&str], others: u16) -> Result<Self> {
        let settings = setup.settings();
        let interfaces = settings.interfaces.max(others + 1);
        let mut live = Live::load(&object()?, &Settings { interfaces, ..settings })?;
        for other in 1..=others {
            live.enter(WatchedInterface { index: LOOPBACK.index + u32::from(other), ..LOOPBACK })?;
        }
        for name in programs {
            load::program(live.programs(), name)?;
        }
        let number = live.enter(LOOPBACK)?;
        live.set_gate(number, true)?;
        Ok(Self { live })
    }

    /// Runs the hook's program on a frame; returns ns per run.
    pub(crate) fn run(&mut self, hook: BenchHook, frame: &[u8], repeat: u32) -> Result<f64> {
        run(self.live.programs(), hook, hook.program(Subject::Ours), frame, repeat)
    }

    /// The descriptor of the hook's program, for a walk.
    pub(crate) fn descriptor(&mut self, hook: BenchHook) -> Result<ProgramFd> {
        descriptor(self.live.programs(), hook.program(Subject::Ours))
    }

    /// Reads the counters of the books and of the packet classes.
    pub(crate) fn counts(&mut self) -> Result<CounterValues> {
        let reading = self.live.read()?;
        let [loopback] = &reading.classes[..] else { anyhow::bail!("classes of other interfaces") };
        Ok(CounterValues { words: reading.counters.words, classes: loopback.packets })
    }

    /// Sums up the records in the tables.
    pub(crate) fn totals(&self) -> RecordTotals {
        let mut totals = RecordTotals::default();
        self.live.for_each_record(&mut |record| {
            totals.established += u64::from(record.state == State::Established);
            if let Detail::Tcp(tcp) = record.detail {
                totals.acks += u64::from(tcp.ack);
            }
        });
        totals
    }

    /// The source of the agent's snapshots.
    pub(crate) fn source(&mut self) -> &mut Live {
        &mut self.live
    }
}
