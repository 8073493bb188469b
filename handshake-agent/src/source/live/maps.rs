//! Creates, fills and freezes the maps of an object, and gives typed access to them.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd};

use aya::maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray};
use aya::programs::ProgramType;
use aya::sys::{BpfHelper, is_helper_supported};
use aya::{Ebpf, EbpfLoader, Pod, VerifierLogLevel};
use handshake_common::abi::{CONFIG_MAP, Config, LocalAddress, PORTS_MAP, PortSet, RING_BYTES, WAYS};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::evidence::slots_of_each;
use super::kernel_log;
use super::mapping::{self, Mapping, SharedValue};
use crate::error::LiveError;
use crate::source::settings::{Settings, Sizes, far_blocks};

/// The maps that no system call changes once the programs are attached. EVENTS and AYA_LOGS are not among
/// them: their reader writes back how far it has read.
pub(super) const FROZEN: [&str; 16] = [
    CONFIG_MAP, PORTS_MAP, "FLOWS4", "FLOWS6", "OWNERS4", "OWNERS6", "MAKERS4", "MAKERS6", "SERVICES",
    "CONNECTS", "STRIPES", "CLIENTS", "COUNTERS", "CLASSES", "LATENCY", "EVIDENCE",
];

/// Size of an unused ring, bytes: rounded up to one page, the least possible.
const LEAST_RING: u32 = 1;
/// Size of the ring of diagnostic lines, bytes: room for several thousand lines.
const LINES_RING: u32 = 128 << 10;

/// A map's value that can be converted from and to plain bytes, as aya's typed maps require.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct PlainBytes<T>(pub(super) T);

// SAFETY: `FromBytes` guarantees that every byte pattern is a value, `IntoBytes` that no byte is padding.
unsafe impl<T: FromBytes + IntoBytes + Copy + 'static> Pod for PlainBytes<T> {}

/// The number of CPUs for which a per-CPU map has values. The kernel writes as many: a file that names fewer
/// than this thread may run on would make each reading write past its buffer.
///
/// # Errors
///
/// [`LiveError::Cpus`].
pub fn possible_cpus() -> Result<usize, LiveError> {
    let (path, file) = ("/sys/devices/system/cpu/possible", aya::util::nr_cpus());
    let cpus = file.map_err(|(path, error)| LiveError::Cpus { problem: format!("{path}: {error}") })?;
    let own = rustix::thread::sched_getaffinity(None).map_or(0, |own| {
        (0..rustix::thread::CpuSet::MAX_CPU).rev().find(|cpu| own.is_set(*cpu)).map_or(0, |last| last + 1)
    });
    if own > cpus {
        return Err(LiveError::Cpus { problem: format!("{path} names {cpus}, and there are {own} or more") });
    }
    Ok(cpus)
}

/// What a run changes in the object before its maps are made.
pub struct ObjectChanges {
    /// How many values maps have, by the maps' names.
    pub sizes: [(&'static str, u32); 10],
    /// The bytes of the programs' constants by name, and whether an object without the constant is refused.
    pub constants: [(&'static str, Vec<u8>, bool); 5],
}

impl ObjectChanges {
    /// The changes of a run with these settings on this machine.
    ///
    /// # Errors
    ///
    /// [`LiveError::Cpus`].
    pub fn of(settings: &Settings, sizes: Sizes) -> Result<Self, LiveError> {
        let events = if settings.events { u32::try_from(RING_BYTES).unwrap_or(u32::MAX) } else { LEAST_RING };
        let (level, lines) =
            if settings.kernel_log { (kernel_log::EVERYTHING, LINES_RING) } else { (0, LEAST_RING) };
        let cpus = possible_cpus()?;
        let slots = if settings.evidence { slots_of_each(cpus) } else { 0 };
        let all_slots = slots.saturating_mul(u32::try_from(cpus).unwrap_or(u32::MAX)).max(1);
        // A map has one value at least.
        let makers = |slots: u32| if settings.processes { slots } else { 1 };
        let number = |number: u64| number.to_ne_bytes().to_vec();
        Ok(Self {
            sizes: [
                ("FLOWS4", sizes.slots4 / WAYS),
                ("FLOWS6", sizes.slots6 / WAYS),
                ("OWNERS4", sizes.slots4),
                ("OWNERS6", sizes.slots6),
                ("MAKERS4", makers(sizes.slots4)),
                ("MAKERS6", makers(sizes.slots6)),
                ("CLASSES", far_blocks(settings.interfaces)),
                ("EVENTS", events),
                ("EVIDENCE", all_slots),
                ("AYA_LOGS", lines),
            ],
            constants: [
                (aya_log::LEVEL, vec![level], settings.kernel_log),
                ("HANDSHAKE_PROCESSES", number(u64::from(settings.processes)), true),
                ("HANDSHAKE_EVIDENCE", number(u64::from(slots)), true),
                ("HANDSHAKE_OWNERS", number(u64::from(settings.owners && tells_owners())), true),
                ("HANDSHAKE_KEEPS_ORDER", number(u64::from(KEEPS_ORDER)), true),
            ],
        })
    }
}

/// Creates the maps of `elf`, which take `bytes` in all, and prepares its programs for loading.
pub(super) fn create(elf: &[u8], settings: &Settings, sizes: Sizes, bytes: u64) -> Result<Ebpf, LiveError> {
    // Never `DISABLE`: aya repeats a failed load with a log buffer to learn the reason, and the kernel
    // refuses a buffer without a level with EINVAL, which would hide the true reason.
    let verifier_log = if settings.verifier_log {
        VerifierLogLevel::DEBUG | VerifierLogLevel::STATS
    } else {
        VerifierLogLevel::STATS
    };
    let ObjectChanges { sizes, constants } = ObjectChanges::of(settings, sizes)?;
    let mut loader = EbpfLoader::new();
    loader.verifier_log_level(verifier_log);
    for (name, values) in sizes {
        loader.map_max_entries(name, values);
    }
    for (name, bytes, is_needed) in &constants {
        loader.override_global(name, bytes.as_slice(), *is_needed);
    }
    loader.load(elf).map_err(|error| LiveError::from_load(error, bytes))
}

/// Whether this machine's processors let each other see their stores in order, and load in order: x86 does
/// (Intel's manual, volume 3, §9.2), arm64 does not. What the programs need beyond that, they do themselves
/// ([`shared`](handshake_common::shared)).
pub(super) const KEEPS_ORDER: bool = cfg!(target_arch = "x86_64");

/// Whether the kernel tells a program at TC whose socket has sent a packet. One that was built without control
/// groups for sockets (CONFIG_SOCK_CGROUP_DATA) would refuse the program that asks.
fn tells_owners() -> bool {
    let asked = is_helper_supported(ProgramType::SchedClassifier, BpfHelper::BPF_FUNC_skb_cgroup_id);
    // A probe that fails says nothing.
    asked.unwrap_or(true)
}

/// Writes the settings to the maps that the programs read.
pub(super) fn fill(bpf: &mut Ebpf, settings: &Settings, sizes: Sizes, hz: u32) -> Result<(), LiveError> {
    let config = settings.config(sizes, hz).map_err(LiveError::Settings)?;
    set::<Config>(bpf, CONFIG_MAP, &[PlainBytes(config)])?;
    set::<PortSet>(bpf, PORTS_MAP, &[PlainBytes(settings.port_set())])
}

/// Writes the values of an array. Except for the first, zero values are skipped: a new map is all zeroes.
pub(super) fn set<T>(bpf: &mut Ebpf, name: &str, values: &[PlainBytes<T>]) -> Result<(), LiveError>
where
    T: FromBytes + IntoBytes + Immutable + Copy + 'static,
{
    let failed = |error| LiveError::from_map(format!("write {name}"), error, 0);
    let map = bpf.map_mut(name).ok_or_else(|| missing(name))?;
    let mut array: Array<_, PlainBytes<T>> = map.try_into().map_err(failed)?;
    for (index, value) in (0..).zip(values) {
        if index == 0 || value.0.as_bytes().iter().any(|byte| *byte != 0) {
            array.set(index, value, 0).map_err(failed)?;
        }
    }
    Ok(())
}

/// Writes a row of the interface table.
pub(super) fn set_interface(bpf: &mut Ebpf, row: u32, word: u64) -> Result<(), LiveError> {
    const NAME: &str = "INTERFACES";
    let failed = |error| LiveError::from_map(format!("write {NAME}"), error, 0);
    let map = bpf.map_mut(NAME).ok_or_else(|| missing(NAME))?;
    let mut rows: Array<_, u64> = map.try_into().map_err(failed)?;
    rows.set(row, word, 0).map_err(failed)
}

/// Changes the map of this host's addresses from `old` to `new`.
pub(super) fn change_local(
    bpf: &mut Ebpf,
    old: &BTreeSet<LocalAddress>,
    new: &BTreeSet<LocalAddress>,
) -> Result<(), LiveError> {
    const NAME: &str = "LOCAL";
    let failed = |error| LiveError::from_map(format!("write {NAME}"), error, 0);
    let map = bpf.map_mut(NAME).ok_or_else(|| missing(NAME))?;
    let mut addresses: HashMap<_, PlainBytes<LocalAddress>, u32> = map.try_into().map_err(failed)?;
    for gone in old.difference(new) {
        addresses.remove(&PlainBytes(*gone)).map_err(failed)?;
    }
    for address in new.difference(old) {
        addresses.insert(PlainBytes(*address), 1, 0).map_err(failed)?;
    }
    Ok(())
}

/// Makes the programs the only writers of the maps, and of CLOCK too unless a test sets the time.
pub(super) fn freeze(bpf: &Ebpf, test_clock: bool) -> Result<(), LiveError> {
    let clock = (!test_clock).then_some("CLOCK");
    for name in FROZEN.into_iter().chain(clock) {
        mapping::freeze(descriptor(bpf, name)?)
            .map_err(|e| LiveError::from_io(format!("freeze {name}"), e, String::new(), 0))?;
    }
    Ok(())
}

/// Maps the first `count` values of an array into memory.
pub(super) fn map_array<T: SharedValue>(
    bpf: &Ebpf,
    name: &str,
    count: usize,
) -> Result<Mapping<T>, LiveError> {
    Mapping::new(descriptor(bpf, name)?, count).map_err(|e| {
        LiveError::from_io(format!("map {name}"), e, String::new(), (count * size_of::<T>()) as u64)
    })
}

/// Takes a map out of the object, with its own type.
pub(super) fn take<T: TryFrom<Map, Error = MapError>>(bpf: &mut Ebpf, name: &str) -> Result<T, LiveError> {
    let map = bpf.take_map(name).ok_or_else(|| missing(name))?;
    T::try_from(map).map_err(|error| LiveError::from_map(format!("open {name}"), error, 0))
}

/// A per-CPU array that stays with the object.
pub(super) type PerCpu<'a, T> = PerCpuArray<&'a MapData, PlainBytes<T>>;

/// Opens a per-CPU array by its name.
pub(super) fn per_cpu<'a, T>(bpf: &'a Ebpf, name: &str) -> Result<PerCpu<'a, T>, LiveError>
where
    T: FromBytes + IntoBytes + Copy + 'static,
{
    let map = bpf.map(name).ok_or_else(|| missing(name))?;
    map.try_into().map_err(|error| LiveError::from_map(format!("open {name}"), error, 0))
}

/// Reads all CPUs' values at `index` by one system call.
pub(super) fn values<T>(map: &PerCpu<'_, T>, name: &str, index: u32) -> Result<Vec<T>, LiveError>
where
    T: FromBytes + IntoBytes + Copy + 'static,
{
    let values = map.get(&index, 0).map_err(|error| LiveError::from_map(format!("read {name}"), error, 0))?;
    Ok(values.iter().map(|value| value.0).collect())
}

/// The descriptor of an array, per-CPU or not.
pub(super) fn descriptor<'a>(bpf: &'a Ebpf, name: &str) -> Result<BorrowedFd<'a>, LiveError> {
    if let Some(Map::Array(data) | Map::PerCpuArray(data)) = bpf.map(name) {
        Ok(data.fd().as_fd())
    } else {
        Err(missing(name))
    }
}

/// The error for an object that lacks the map or program `name`.
pub(super) fn missing(name: &str) -> LiveError {
    LiveError::Damaged(format!("it has no {name}"))
}
