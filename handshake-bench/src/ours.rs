//! handshake's own object, with the maps and the configuration that the agent gives it, and what it has counted.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd};
use std::ptr::NonNull;

use anyhow::{Context, Result, ensure};
use aya::maps::{Array, MapData, PerCpuArray};
use aya::programs::ProgramFd;
use aya::{Ebpf, EbpfLoader};
use handshake_common::abi::{
    CLASS_WORDS, CONFIG_MAP, COUNTERS, Config, CpuCounts, HASH_WORDS, LAYOUT, MAX_INTERFACES, MAX_NETS, Net,
    PORT_WORDS, PORTS_MAP, PortSet, WAYS, option,
};
use handshake_common::record::{Detail, State};
use handshake_common::table::{self, Slot4};
use object::{Object, ObjectSection, ObjectSymbol};
use zerocopy::{FromBytes, IntoBytes};

use crate::counts::Counts;
use crate::hook::{Hook, Subject};
use crate::programs::{Plain, descriptor, load, run};

/// The interface of a test run's packets: the loopback device.
pub(crate) const LOOPBACK: u32 = 1;
/// The table when nobody says otherwise.
pub(crate) const DEFAULT_SLOTS: u32 = 524_288;
/// The agent gives IPv6 one slot for eight.
const V6_SHARE: u32 = 8;
/// T1 and T2 as the agent has them.
const HALF_OPEN_AFTER_NS: u64 = 3_000_000_000;
const EXPIRE_AFTER_NS: u64 = 75_000_000_000;
/// No flow grows idle within a row.
const NEVER: u32 = i32::MAX.cast_unsigned();

/// How a row wants handshake to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup {
    /// Slots of the IPv4 table, a power of two.
    pub(crate) slots: u32,
    /// Only flows with this port are wanted; 0: all.
    pub(crate) port: u16,
    /// The interface whose packets are counted.
    pub(crate) interface: u32,
}

/// handshake, loaded.
pub(crate) struct Ours {
    bpf: Ebpf,
    slots: u32,
}

/// What the IPv4 table holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Records of completed connections.
    pub(crate) established: u64,
    /// Packets of class ack that all records together have counted.
    pub(crate) acks: u64,
}

impl Ours {
    /// Creates the maps as the agent does, fills them, and loads `programs`.
    pub(crate) fn load(elf: &[u8], setup: Setup, programs: &[&str]) -> Result<Self> {
        ensure!(
            layout(elf) == Some(LAYOUT),
            "the object has other records than the sources: run `cargo xtask build-ebpf`"
        );
        let slots6 = setup.slots / V6_SHARE;
        let mut bpf = EbpfLoader::new()
            .map_max_entries("FLOWS4", setup.slots / WAYS)
            .map_max_entries("FLOWS6", slots6 / WAYS)
            .map_max_entries("EVENTS", 1)
            .map_max_entries("AYA_LOGS", 1)
            .override_global("AYA_LOG_LEVEL", &0_u8, false)
            .load(elf)
            .context("create handshake's maps")?;
        let config = config(setup, slots6)?;
        let mut ports = [0; PORT_WORDS];
        ports[usize::from(setup.port / 64)] = 1 << (setup.port % 64);
        set(&mut bpf, CONFIG_MAP, Plain(config))?;
        set::<PortSet>(&mut bpf, PORTS_MAP, Plain(ports))?;
        for name in programs {
            load(&mut bpf, name)?;
        }
        Ok(Self { bpf, slots: setup.slots })
    }

    /// Runs the hook's program on a frame; ns a run.
    pub(crate) fn run(&self, hook: Hook, frame: &[u8], repeat: u32) -> Result<f64> {
        run(&self.bpf, hook, hook.program(Subject::Ours), frame, repeat)
    }

    /// The hook's program, to be walked.
    pub(crate) fn descriptor(&self, hook: Hook) -> Result<ProgramFd> {
        descriptor(&self.bpf, hook.program(Subject::Ours))
    }

    /// Reads the counters. Nothing runs meanwhile.
    pub(crate) fn counts(&self) -> Result<Counts> {
        let mut counts = Counts { words: [0; COUNTERS], classes: [0; CLASS_WORDS] };
        let map = self.bpf.map("COUNTERS").context("no map COUNTERS")?;
        let map: PerCpuArray<&MapData, Plain<CpuCounts>> = map.try_into()?;
        for Plain(cpu) in map.get(&0, 0).context("read COUNTERS")?.iter() {
            let [first, ..] = cpu.classes;
            counts
                .words
                .iter_mut()
                .zip(cpu.counters.words)
                .for_each(|(sum, word)| *sum = sum.wrapping_add(word));
            counts.classes.iter_mut().zip(first.packets).for_each(|(sum, word)| *sum += word);
        }
        Ok(counts)
    }

    /// Goes through the IPv4 table.
    pub(crate) fn tally(&self) -> Result<Tally> {
        let map = self.bpf.map("FLOWS4").context("no map FLOWS4")?;
        let aya::maps::Map::Array(map) = map else { anyhow::bail!("FLOWS4 is no array") };
        let mapped = Mapped::new(map.fd().as_fd().as_raw_fd(), self.slots as usize)?;
        let mut tally = Tally::default();
        for record in mapped.slots().iter().filter_map(table::read) {
            tally.established += u64::from(record.state == State::Established);
            if let Detail::Tcp(tcp) = record.detail {
                tally.acks += u64::from(tcp.ack);
            }
        }
        Ok(tally)
    }
}

/// The IPv4 table as it lies in the kernel.
struct Mapped {
    start: NonNull<Slot4>,
    count: usize,
}

impl Mapped {
    fn new(map: i32, count: usize) -> Result<Self> {
        let length = count * size_of::<Slot4>();
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory of ours.
        let start =
            unsafe { libc::mmap(std::ptr::null_mut(), length, libc::PROT_READ, libc::MAP_SHARED, map, 0) };
        if start == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error()).context("map FLOWS4");
        }
        let start = NonNull::new(start.cast()).context("FLOWS4 mapped at address 0")?;
        Ok(Self { start, count })
    }

    fn slots(&self) -> &[Slot4] {
        // SAFETY: `new` mapped so many slots, page-aligned, and they stay while `self` lives; a slot is made of
        // shared words, which the kernel may change meanwhile.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.count) }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and no borrow of it is left.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.count * size_of::<Slot4>()) };
    }
}

fn config(setup: Setup, slots6: u32) -> Result<Config> {
    let mut factors = [[0; HASH_WORDS]; 2];
    let random = File::open("/dev/urandom").and_then(|mut file| file.read_exact(factors.as_mut_bytes()));
    random.context("read /dev/urandom")?;
    let mut interfaces = [0; MAX_INTERFACES];
    interfaces[0] = setup.interface;
    Ok(Config {
        factors,
        half_open_after_ns: HALF_OPEN_AFTER_NS,
        expire_after_ns: EXPIRE_AFTER_NS,
        udp_idle_jiffies: NEVER,
        idle_after_jiffies: NEVER,
        mask4: setup.slots / WAYS - 1,
        mask6: slots6 / WAYS - 1,
        interfaces,
        options: if setup.port == 0 { 0 } else { option::PORTS },
        raw_interfaces: 0,
        nets: [Net::default(); MAX_NETS],
        reserved: 0,
    })
}

/// Writes the one value of a map.
fn set<T>(bpf: &mut Ebpf, name: &str, value: Plain<T>) -> Result<()>
where
    T: FromBytes + IntoBytes + Copy + 'static,
{
    let map = bpf.map_mut(name).with_context(|| format!("no map {name}"))?;
    let mut array: Array<_, Plain<T>> = map.try_into()?;
    array.set(0, value, 0).with_context(|| format!("write {name}"))
}

/// The object's own word for the layout of its records.
fn layout(elf: &[u8]) -> Option<u64> {
    let file = object::File::parse(elf).ok()?;
    let symbol = file.symbols().find(|symbol| symbol.name() == Ok("HANDSHAKE_LAYOUT"))?;
    let section = file.section_by_index(symbol.section_index()?).ok()?;
    let bytes = section.data_range(symbol.address(), 8).ok()??;
    bytes.try_into().ok().map(u64::from_ne_bytes)
}
