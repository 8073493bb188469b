//! The rows `instructions_*`: how many instructions of BPF the object's programs execute for a packet, whatever
//! the machine's speed.
//!
//! ```text
//! rows ─┬─ image     the object, linked by the agent's loader
//!       ├─ kernel    maps, helpers, contexts
//!       └─ machine   the interpreter
//!             │
//!          memory
//! ```
//!
//! Each row is counted in new tables under many hash factors, since it depends on those which set has room or holds
//! the record. A helper's call, a map lookup too, is one instruction.

mod image;
mod kernel;
mod machine;
mod memory;

use anyhow::{Context, Result, ensure};
use handshake_agent::options::defaults::MAX_FLOWS;
use handshake_agent::session::object;
use handshake_agent::source::settings::{Settings, Sizes};
use handshake_common::abi::{CONFIG_MAP, Counter, CpuCounts, PORTS_MAP};
use handshake_common::engine::factors;
use handshake_common::interface::{Interface, row_of};
use handshake_common::random::split_mix;
use handshake_common::wire::Class;
use serde_json::{Value, json};
use zerocopy::{FromBytes, IntoBytes};

use crate::counts::CounterValues;
use crate::frames::{self, Ip};
use crate::hook::{BenchHook, Subject};
use crate::ours::{LOOPBACK, Setup};
use crate::packet_rows::{FILLING, family};
use image::{ENTRY, Image, REST};
use kernel::{HZ, Kernel};
use machine::{Environment as _, Executed, Machine};

/// Hash factors of a row, each with tables of their own.
const TABLES: u64 = 33;
/// The flows of the tables that are filled.
const FEW_FLOWS: u32 = 128;
/// Time between two packets, ns.
const BETWEEN: u64 = 30_000;
/// Handshakes of other clients before the measured one: the service and both control groups have their rows then.
const EARLIER: u32 = 2;
/// The control groups of a client and of the server, where they are of this host.
const GROUPS: [u64; 2] = [4_001, 4_002];

/// A kind of packet, and what it meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Interpreted {
    /// A SYN, with room in its sets.
    Syn,
    /// The SYN+ACK that answers it.
    SynAck,
    /// The ACK that completes the handshake.
    FinalAck,
    /// An ACK of an established connection.
    Ack,
    /// A request of an answered UDP flow.
    Udp,
    /// A SYN into sets that are full of unanswered attempts.
    SynFull,
    /// ARP.
    Arp,
}

/// A row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct InstructionCase {
    pub(crate) name: &'static str,
    kind: Interpreted,
    ip: Ip,
    hook: BenchHook,
    /// Whether both ends' sockets are this host's.
    owned: bool,
}

/// All rows.
pub(crate) const CASES: [InstructionCase; 29] = {
    use BenchHook::{Tc, Xdp};
    use Interpreted::{Ack, Arp, FinalAck, Syn, SynAck, SynFull, Udp};
    use Ip::{V4, V6};
    [
        case("instructions_syn4", Syn, V4, Xdp),
        case("instructions_syn4_tc", Syn, V4, Tc),
        owned(case("instructions_syn4_owned", Syn, V4, Tc)),
        case("instructions_syn_ack4", SynAck, V4, Xdp),
        case("instructions_syn_ack4_tc", SynAck, V4, Tc),
        owned(case("instructions_syn_ack4_owned", SynAck, V4, Tc)),
        case("instructions_final_ack4", FinalAck, V4, Xdp),
        case("instructions_final_ack4_tc", FinalAck, V4, Tc),
        owned(case("instructions_final_ack4_owned", FinalAck, V4, Tc)),
        case("instructions_ack4", Ack, V4, Xdp),
        case("instructions_ack4_tc", Ack, V4, Tc),
        case("instructions_udp4", Udp, V4, Xdp),
        case("instructions_udp4_tc", Udp, V4, Tc),
        case("instructions_syn_full4", SynFull, V4, Xdp),
        case("instructions_syn_full4_tc", SynFull, V4, Tc),
        case("instructions_arp", Arp, V4, Xdp),
        case("instructions_arp_tc", Arp, V4, Tc),
        case("instructions_syn6", Syn, V6, Xdp),
        case("instructions_syn6_tc", Syn, V6, Tc),
        case("instructions_syn_ack6", SynAck, V6, Xdp),
        case("instructions_syn_ack6_tc", SynAck, V6, Tc),
        case("instructions_final_ack6", FinalAck, V6, Xdp),
        case("instructions_final_ack6_tc", FinalAck, V6, Tc),
        case("instructions_ack6", Ack, V6, Xdp),
        case("instructions_ack6_tc", Ack, V6, Tc),
        case("instructions_udp6", Udp, V6, Xdp),
        case("instructions_udp6_tc", Udp, V6, Tc),
        case("instructions_syn_full6", SynFull, V6, Xdp),
        case("instructions_syn_full6_tc", SynFull, V6, Tc),
    ]
};

const fn case(name: &'static str, kind: Interpreted, ip: Ip, hook: BenchHook) -> InstructionCase {
    InstructionCase { name, kind, ip, hook, owned: false }
}

const fn owned(case: InstructionCase) -> InstructionCase {
    InstructionCase { owned: true, ..case }
}

/// What a row's packet takes, under each of the hash factors; the least first.
pub(crate) struct InstructionRow {
    case: InstructionCase,
    executed: Vec<Executed>,
}

impl InstructionCase {
    /// Counts the row's packet under each of the hash factors.
    pub(crate) fn measure(self) -> Result<InstructionRow> {
        self.measure_in(TABLES)
    }

    fn measure_in(self, tables: u64) -> Result<InstructionRow> {
        let max_flows = if self.kind == Interpreted::SynFull { FEW_FLOWS } else { MAX_FLOWS };
        let settings = Setup { max_flows, port: None, half_open_after: None }.settings();
        let image = Image::link(&object()?, self.hook.program(Subject::Ours), &settings)?;
        let executed = (0..tables).map(|mut seed| {
            let factors = Some(factors(|| split_mix(&mut seed)));
            self.count(&image, &Settings { factors, ..settings.clone() })
        });
        let executed: Result<Vec<Executed>> = executed.collect();
        let mut executed = executed.with_context(|| self.name)?;
        executed.sort_unstable();
        Ok(InstructionRow { case: self, executed })
    }

    /// Counts the row's packet in new tables, and checks that handshake's books name it.
    fn count(self, image: &Image, settings: &Settings) -> Result<Executed> {
        let mut host = Host::new(self, image, settings)?;
        self.prepare(&mut host, settings)?;
        let (frame, reply) = self.frame();
        let before = host.counts()?;
        let executed = host.send(&frame, reply)?;
        self.check(&host.counts()?.since(&before)).context("the packet took another path")?;
        Ok(executed)
    }

    /// Sends all that comes before the packet.
    fn prepare(self, host: &mut Host<'_>, settings: &Settings) -> Result<()> {
        let handshake = frames::handshake_of(self.ip, 0);
        let earlier = match self.kind {
            Interpreted::Arp => return Ok(()),
            Interpreted::Udp => {
                host.send(&frames::udp(self.ip, false), false)?;
                host.send(&frames::udp(self.ip, true), true)?;
                return Ok(());
            }
            Interpreted::SynFull => {
                let Sizes { slots4, slots6 } = Sizes::for_flows(settings.max_flows);
                let slots = match self.ip {
                    Ip::V4 => slots4,
                    Ip::V6 => slots6,
                };
                for client in 1..=FILLING * slots {
                    let [syn, ..] = frames::handshake_of(self.ip, client);
                    host.send(&syn, false)?;
                }
                return Ok(());
            }
            Interpreted::Syn => &handshake[..0],
            Interpreted::SynAck => &handshake[..1],
            Interpreted::FinalAck => &handshake[..2],
            Interpreted::Ack => &handshake[..],
        };
        for client in 1..=EARLIER {
            host.send_handshake(&frames::handshake_of(self.ip, client))?;
        }
        host.send_handshake(earlier)
    }

    /// The packet, and whether it is the server's.
    fn frame(self) -> (Vec<u8>, bool) {
        let [syn, syn_ack, ack] = frames::handshake_of(self.ip, 0);
        match self.kind {
            Interpreted::Syn | Interpreted::SynFull => (syn, false),
            Interpreted::SynAck => (syn_ack, true),
            Interpreted::FinalAck | Interpreted::Ack => (ack, false),
            Interpreted::Udp => (frames::udp(self.ip, false), false),
            Interpreted::Arp => (frames::arp(), false),
        }
    }

    /// Fails unless one packet of this kind explains all changes of handshake's counters.
    fn check(self, change: &CounterValues) -> Result<()> {
        const LESS: u64 = 1_u64.wrapping_neg();
        let (class, moved) = match self.kind {
            Interpreted::Syn => (Class::Syn, vec![(Counter::Attempts, 1), (Counter::OpenNoSynAck, 1)]),
            Interpreted::SynAck => {
                (Class::SynAck, vec![(Counter::OpenNoSynAck, LESS), (Counter::OpenNoAck, 1)])
            }
            Interpreted::FinalAck => (Class::Ack, vec![(Counter::OpenNoAck, LESS), (Counter::Completed, 1)]),
            Interpreted::Ack => (Class::Ack, Vec::new()),
            Interpreted::Udp => {
                let bytes = frames::udp_bytes(self.ip);
                (Class::Udp, vec![(Counter::UdpPackets, 1), (Counter::UdpBytes, bytes)])
            }
            Interpreted::SynFull => {
                let evicted = [Counter::Evicted, Counter::EvictedHalfOpen].map(|counter| (counter, 1));
                (Class::Syn, [&[(Counter::Attempts, 1)], &evicted[..]].concat())
            }
            Interpreted::Arp => (Class::NonIp, Vec::new()),
        };
        let family = (self.kind != Interpreted::Arp).then_some(family(self.ip));
        change.ensure_class(class, family, 1)?;
        change.ensure_only(&moved)
    }
}

/// The programs of a row, on a machine where nothing else happens.
struct Host<'a> {
    case: InstructionCase,
    image: &'a Image,
    machine: Machine<Kernel>,
}

impl<'a> Host<'a> {
    /// Fills the maps that the agent fills.
    fn new(case: InstructionCase, image: &'a Image, settings: &Settings) -> Result<Self> {
        let mut memory = memory::Memory::default();
        let kernel = Kernel::new(&mut memory, image.maps(), REST)?;
        let config = settings.config(Sizes::for_flows(settings.max_flows), HZ)?;
        let values = |name| kernel.values(image.descriptor(name)?);
        memory.set(values(CONFIG_MAP)?, config.as_bytes())?;
        memory.set(values(PORTS_MAP)?, settings.port_set().as_bytes())?;
        let row = u64::from(row_of(LOOPBACK.index, 0)) * size_of::<u64>() as u64;
        let interface = Interface::new(0, LOOPBACK.group, LOOPBACK.raw).with_gate(true);
        memory.set(values("INTERFACES")? + row, interface.row(LOOPBACK.index).as_bytes())?;
        Ok(Self { case, image, machine: Machine::new(memory, kernel) })
    }

    /// Sends segments of a handshake, from the first one on.
    fn send_handshake(&mut self, segments: &[Vec<u8>]) -> Result<()> {
        for (segment, reply) in segments.iter().zip([false, true, false]) {
            self.send(segment, reply)?;
        }
        Ok(())
    }

    /// Runs the hook's program on a frame, a while after the one before.
    fn send(&mut self, frame: &[u8], reply: bool) -> Result<Executed> {
        let hook = self.case.hook;
        let Machine { memory, environment: kernel, .. } = &mut self.machine;
        kernel.now_ns += BETWEEN;
        kernel.group = if self.case.owned { GROUPS[usize::from(reply)] } else { 0 };
        let context = kernel.receive(memory, hook, LOOPBACK.index, frame)?;
        let (verdict, executed) = self.machine.run(&self.image.programs, ENTRY, context)?;
        ensure!(
            verdict & u64::from(u32::MAX) == u64::from(hook.verdict()),
            "the program ended with {verdict:#x}"
        );
        Ok(executed)
    }

    /// Reads the counters of the books and of the packet classes.
    fn counts(&self) -> Result<CounterValues> {
        let descriptor = self.image.descriptor("COUNTERS")?;
        let bytes = self.machine.environment.all_values(&self.machine.memory, descriptor)?;
        let counts = CpuCounts::read_from_bytes(bytes).ok().context("COUNTERS has another size")?;
        Ok(CounterValues { words: counts.counters.words, classes: counts.classes[0].packets })
    }
}

impl InstructionRow {
    /// Of the median.
    fn median(&self) -> Executed {
        self.executed[self.executed.len() / 2]
    }

    fn range(&self) -> [u64; 2] {
        [0, self.executed.len() - 1].map(|place| self.executed[place].instructions)
    }

    pub(crate) fn json(&self) -> Value {
        let (Executed { instructions, helpers, atomics }, [least, most]) = (self.median(), self.range());
        json!({
            "name": self.case.name, "hook": self.case.hook.name(), "unit": "instructions",
            "instructions": instructions, "least": least, "most": most,
            "helper_calls": helpers, "atomic_operations": atomics,
        })
    }

    pub(crate) const HEAD: [&str; 7] =
        ["row", "instructions", "least", "most", "helper calls", "atomics", "hook"];

    pub(crate) fn line(&self) -> [String; 7] {
        let (Executed { instructions, helpers, atomics }, [least, most]) = (self.median(), self.range());
        let [instructions, least, most, helpers, atomics] =
            [instructions, least, most, helpers, atomics].map(|number| number.to_string());
        let name = self.case.name.to_owned();
        [name, instructions, least, most, helpers, atomics, self.case.hook.name().to_owned()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of the embedded object.
    #[test]
    fn every_packet_takes_the_path_of_its_row() {
        for case in CASES {
            let row = case.measure_in(2).unwrap_or_else(|error| panic!("{}: {error:#}", case.name));
            let [least, most] = row.range();
            assert!(least > 0 && most < 2 * least, "{}: {least} to {most}", case.name);
        }
    }

    #[test]
    fn a_packet_that_does_not_take_effect_is_an_error() {
        let fits = CASES.into_iter().find(|case| case.kind == Interpreted::FinalAck).expect("a row");
        let nothing = CounterValues { words: [0; _], classes: [0; _] };
        let error = fits.check(&nothing).expect_err("nothing was counted");
        assert!(error.to_string().contains("packets of class"), "{error}");
    }
}
