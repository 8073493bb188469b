//! The kernel as a source: loads the BPF object, sizes, fills and freezes its maps, and reads them. The programs
//! are attached elsewhere, from here on the kernel is the only writer.
//!
//! ```text
//! Settings ─▶ CONFIG, PORTS ─▶ freeze ─▶ attach ─▶ programs ─▶ COUNTERS, CLASSES, LATENCY   one system call each
//!                                                     ├──────▶ FLOWS4, FLOWS6, SERVICES     mapped: none
//!                                                     └──────▶ EVENTS                       polled
//! ```

mod clock;
mod counters;
mod error;
mod kernel_log;
mod mapping;
mod object;
mod settings;
#[cfg(test)]
mod tests;

use std::os::fd::{AsFd, BorrowedFd};

use aya::maps::{Array, Map, MapData, PerCpuArray, RingBuf};
use aya::programs::{ProgramError, TestRun, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader, Pod};
use handshake_common::abi::{
    BUCKETS, CLASS_WORDS, ClassBlock, ClockPair, Config, CounterBlock, Event, Histogram, RING_BYTES,
    SERVICES, Service,
};
use handshake_common::books::ServiceRow;
use handshake_common::record::{Clocks, Now, Record};
use handshake_common::shared::Shared64;
use handshake_common::table::{self, Slot, Slot4, Slot6};
use handshake_common::verdict::Leg;
use zerocopy::{FromBytes, IntoBytes};

use crate::source::{Reading, Source};

pub(crate) use error::LiveError;
pub(crate) use kernel_log::KernelLog;
use mapping::Mapping;
pub(crate) use settings::{DEFAULT_MAX_FLOWS, DEFAULT_UDP_IDLE, Settings, Sizes, WatchedInterface};

/// The program that reads the kernel's clocks.
const CLOCK_PROGRAM: &str = "handshake_clock";
/// Maps that no system call changes once the programs are attached. EVENTS and AYA_LOGS are left out: their reader
/// writes how far it has read.
const FROZEN: [&str; 9] =
    ["CONFIG", "PORTS", "FLOWS4", "FLOWS6", "SERVICES", "STRIPES", "COUNTERS", "CLASSES", "LATENCY"];
/// BPF_PROG_TEST_RUN wants a frame of 14 bytes at least; the program does not look at it.
const ANY_FRAME: [u8; 64] = [0; 64];

/// The loaded object and what is read of it. Dropping it closes the maps; links live where they were attached.
pub(crate) struct Live {
    bpf: Ebpf,
    clock: Mapping<[Shared64; 2]>,
    flows4: Mapping<Slot4>,
    flows6: Mapping<Slot6>,
    services: Mapping<ServiceRow>,
    events: Option<RingBuf<MapData>>,
    kernel_log: Option<KernelLog>,
    clocks: Clocks,
    interfaces: u32,
    test_clock: bool,
    lost_before_hook: Box<dyn FnMut() -> u64 + Send>,
}

impl Live {
    /// Creates the maps of `elf`, measures the kernel's clock, fills and freezes the maps. No program but the clock's
    /// is loaded: that is for whoever attaches, through [`programs`](Self::programs).
    ///
    /// Takes some 50 ms, for the clock.
    pub(crate) fn load(elf: &[u8], settings: &Settings) -> Result<Self, LiveError> {
        object::check_layout(elf)?;
        let sizes = Sizes::for_flows(settings.max_flows);
        let bytes = sizes.bytes(possible_cpus()?, settings.events);
        let mut bpf = create_maps(elf, settings, sizes, bytes)?;
        load_clock(&mut bpf)?;
        let clock = map_array(&bpf, "CLOCK", 1)?;
        let hz = clock::measure_hz(|| read_clock(&bpf, &clock), std::thread::sleep)?;
        let clocks = settings.clocks(hz);
        fill(&mut bpf, settings, sizes, &clocks)?;
        freeze_maps(&bpf, settings.test_clock)?;
        Ok(Self {
            clock,
            flows4: map_array(&bpf, "FLOWS4", sizes.slots4 as usize)?,
            flows6: map_array(&bpf, "FLOWS6", sizes.slots6 as usize)?,
            services: map_array(&bpf, "SERVICES", SERVICES as usize)?,
            events: settings.events.then(|| take(&mut bpf, "EVENTS")).transpose()?,
            kernel_log: settings.kernel_log.then(|| start_log(&mut bpf)).transpose()?,
            clocks,
            interfaces: u32::try_from(settings.interfaces.len()).unwrap_or(u32::MAX),
            test_clock: settings.test_clock,
            lost_before_hook: Box::new(|| 0),
            bpf,
        })
    }

    /// The object's programs, to load and attach.
    pub(crate) fn programs(&mut self) -> &mut Ebpf {
        &mut self.bpf
    }

    /// How [`Reading::lost_before_hook`] is asked for: packets the interfaces lost since they were attached to.
    pub(crate) fn count_losses_by(&mut self, losses: impl FnMut() -> u64 + Send + 'static) {
        self.lost_before_hook = Box::new(losses);
    }

    /// The kernel side's diagnostics, when [`Settings::kernel_log`] asked for them: once, to be forwarded.
    pub(crate) fn take_kernel_log(&mut self) -> Option<KernelLog> {
        self.kernel_log.take()
    }

    /// Takes the events there are out of the ring, in their order. Nobody wakes the reader: call it at every
    /// interval and shortly between; a ring that is full meanwhile counts `lost_events`.
    pub(crate) fn drain_events(&mut self, visit: &mut dyn FnMut(&Event)) {
        let Some(ring) = &mut self.events else { return };
        while let Some(bytes) = ring.next() {
            // Copied: records in the ring are aligned to eight bytes, events to a cache line.
            if let Ok(event) = Event::read_from_bytes(&bytes) {
                visit(&event);
            }
        }
    }

    /// Sets the time of programs that were loaded with [`Settings::test_clock`].
    pub(crate) fn set_test_clock(&mut self, time: ClockPair) -> Result<(), LiveError> {
        set(&mut self.bpf, "CLOCK", &[Plain(time)])
    }

    fn now(&self) -> Result<ClockPair, LiveError> {
        if self.test_clock { Ok(clock_pair(&self.clock)) } else { read_clock(&self.bpf, &self.clock) }
    }
}

impl Source for Live {
    /// The clock first, so that nothing in the counters or tables is younger than `now` says by more than the reading took.
    fn read(&mut self) -> anyhow::Result<Reading> {
        let now = self.now()?;
        let wall = clock::wall_ns(now.now_ns);
        let wall_ns = wall.map_err(|e| LiveError::from_io("read the clocks", e, String::new(), 0))?;
        let [syn_synack, synack_ack, connect] = Leg::ALL;
        Ok(Reading {
            now: Now { ns: now.now_ns, jiffies: low_half(now.jiffies) },
            wall_ns,
            stopped: false,
            counters: read_counters(&self.bpf)?,
            classes: read_classes(&self.bpf, self.interfaces)?,
            histograms: [
                read_histogram(&self.bpf, syn_synack)?,
                read_histogram(&self.bpf, synack_ack)?,
                read_histogram(&self.bpf, connect)?,
            ],
            slots: (self.flows4.len() + self.flows6.len()) as u64,
            lost_before_hook: (self.lost_before_hook)(),
        })
    }

    fn for_each_record(&self, visit: &mut dyn FnMut(&Record)) {
        visit_slots(&self.flows4, visit);
        visit_slots(&self.flows6, visit);
    }

    fn services(&self) -> Vec<(u16, Service)> {
        let rows = self.services.iter().zip(0_u16..);
        rows.filter_map(|(row, number)| Some((number, service(row, number)?))).collect()
    }

    fn clocks(&self) -> Clocks {
        self.clocks
    }
}

/// One balanced block: see [`counters`].
fn read_counters(bpf: &Ebpf) -> Result<CounterBlock, LiveError> {
    let map = per_cpu(bpf, "COUNTERS")?;
    counters::settle(|| values(&map, "COUNTERS", 0), std::thread::sleep)
}

/// A block an interface, summed over the CPUs.
fn read_classes(bpf: &Ebpf, interfaces: u32) -> Result<Vec<ClassBlock>, LiveError> {
    let map = per_cpu::<ClassBlock>(bpf, "CLASSES")?;
    let read = |interface| {
        let mut sum = ClassBlock { packets: [0; CLASS_WORDS] };
        values(&map, "CLASSES", interface)?.iter().for_each(|block| add(&mut sum.packets, &block.packets));
        Ok(sum)
    };
    (0..interfaces).map(read).collect()
}

fn read_histogram(bpf: &Ebpf, leg: Leg) -> Result<Histogram, LiveError> {
    let map = per_cpu::<Histogram>(bpf, "LATENCY")?;
    let mut sum = Histogram { buckets: [0; BUCKETS] };
    values(&map, "LATENCY", leg as u32)?.iter().for_each(|part| add(&mut sum.buckets, &part.buckets));
    Ok(sum)
}

fn visit_slots<S: Slot>(slots: &[S], visit: &mut dyn FnMut(&Record)) {
    for slot in slots {
        if let Some(record) = table::read(slot) {
            visit(&record);
        }
    }
}

/// A row that counts: a service's, or a half's `other` once something did not fit.
fn service(row: &ServiceRow, number: u16) -> Option<Service> {
    if u32::from(number) % (SERVICES / 2) != 0 {
        return row.read();
    }
    let other = row.copy();
    other.gauges.iter().any(|gauge| *gauge != 0).then_some(other)
}

fn add(sums: &mut [u64], words: &[u64]) {
    for (sum, word) in sums.iter_mut().zip(words) {
        *sum = sum.wrapping_add(*word);
    }
}

#[expect(clippy::cast_possible_truncation, reason = "records keep the low half of the jiffies")]
const fn low_half(jiffies: u64) -> u32 {
    jiffies as u32
}

/// A map's value that is plain bytes both ways, as aya's typed maps ask for it.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Plain<T>(T);

// SAFETY: `FromBytes` says that every byte pattern is a value, `IntoBytes` that no byte is padding.
unsafe impl<T: FromBytes + IntoBytes + Copy + 'static> Pod for Plain<T> {}

fn possible_cpus() -> Result<usize, LiveError> {
    aya::util::nr_cpus()
        .map_err(|(path, error)| LiveError::from_io(format!("read {path}"), error, String::new(), 0))
}

fn create_maps(elf: &[u8], settings: &Settings, sizes: Sizes, bytes: u64) -> Result<Ebpf, LiveError> {
    let test_clock = u8::from(settings.test_clock);
    let log_level = if settings.kernel_log { kernel_log::EVERYTHING } else { 0 };
    // One byte becomes one page: the least a ring can be.
    let ring = if settings.events { u32::try_from(RING_BYTES).unwrap_or(u32::MAX) } else { 1 };
    EbpfLoader::new()
        .map_max_entries("FLOWS4", sizes.slots4)
        .map_max_entries("FLOWS6", sizes.slots6)
        .map_max_entries("EVENTS", ring)
        .override_global("TEST_CLOCK", &test_clock, settings.test_clock)
        .override_global(aya_log::LEVEL, &log_level, settings.kernel_log)
        .load(elf)
        .map_err(|error| LiveError::from_load(error, bytes))
}

fn load_clock(bpf: &mut Ebpf) -> Result<(), LiveError> {
    let program = bpf.program_mut(CLOCK_PROGRAM).ok_or_else(|| missing(CLOCK_PROGRAM))?;
    let program: Result<&mut Xdp, ProgramError> = program.try_into();
    program
        .and_then(|program| program.load())
        .map_err(|error| LiveError::from_program(CLOCK_PROGRAM, error, 0))
}

/// Runs the clock's program, which writes both clocks into CLOCK, and reads them there.
fn read_clock(bpf: &Ebpf, clock: &Mapping<[Shared64; 2]>) -> Result<ClockPair, LiveError> {
    let program = bpf.program(CLOCK_PROGRAM).ok_or_else(|| missing(CLOCK_PROGRAM))?;
    let program: Result<&Xdp, ProgramError> = program.try_into();
    let options = TestRunOptions { data_in: Some(&ANY_FRAME), ..TestRunOptions::default() };
    program
        .and_then(|program| program.test_run(options))
        .map_err(|error| LiveError::from_program(CLOCK_PROGRAM, error, 0))?;
    Ok(clock_pair(clock))
}

fn clock_pair(clock: &Mapping<[Shared64; 2]>) -> ClockPair {
    let [now_ns, jiffies] = &clock[0];
    ClockPair { now_ns: now_ns.load(), jiffies: jiffies.load() }
}

fn fill(bpf: &mut Ebpf, settings: &Settings, sizes: Sizes, clocks: &Clocks) -> Result<(), LiveError> {
    let config = settings.config(sizes, clocks).map_err(LiveError::Settings)?;
    set::<Config>(bpf, "CONFIG", &[Plain(config)])?;
    set::<u64>(bpf, "PORTS", &settings.port_set().map(Plain))
}

/// Writes the values of an array that are not zero: those are, from the map's creation.
fn set<T>(bpf: &mut Ebpf, name: &str, values: &[Plain<T>]) -> Result<(), LiveError>
where
    T: FromBytes + IntoBytes + zerocopy::Immutable + Copy + 'static,
{
    let failed = |error| LiveError::from_map(format!("write {name}"), error, 0);
    let map = bpf.map_mut(name).ok_or_else(|| missing(name))?;
    let mut array: Array<_, Plain<T>> = map.try_into().map_err(failed)?;
    for (index, value) in (0..).zip(values) {
        if index == 0 || value.0.as_bytes().iter().any(|byte| *byte != 0) {
            array.set(index, value, 0).map_err(failed)?;
        }
    }
    Ok(())
}

fn freeze_maps(bpf: &Ebpf, test_clock: bool) -> Result<(), LiveError> {
    let clock = (!test_clock).then_some("CLOCK");
    for name in FROZEN.into_iter().chain(clock) {
        mapping::freeze(descriptor(bpf, name)?)
            .map_err(|e| LiveError::from_io(format!("freeze {name}"), e, String::new(), 0))?;
    }
    Ok(())
}

fn map_array<T: mapping::SharedValue>(bpf: &Ebpf, name: &str, count: usize) -> Result<Mapping<T>, LiveError> {
    Mapping::new(descriptor(bpf, name)?, count).map_err(|e| {
        LiveError::from_io(format!("map {name}"), e, String::new(), (count * size_of::<T>()) as u64)
    })
}

fn take<T: TryFrom<Map, Error = aya::maps::MapError>>(bpf: &mut Ebpf, name: &str) -> Result<T, LiveError> {
    let map = bpf.take_map(name).ok_or_else(|| missing(name))?;
    T::try_from(map).map_err(|error| LiveError::from_map(format!("open {name}"), error, 0))
}

fn start_log(bpf: &mut Ebpf) -> Result<KernelLog, LiveError> {
    KernelLog::new(bpf).map_err(|error| LiveError::Damaged(format!("AYA_LOGS: {error}")))
}

type PerCpu<'a, T> = PerCpuArray<&'a MapData, Plain<T>>;

fn per_cpu<'a, T>(bpf: &'a Ebpf, name: &str) -> Result<PerCpu<'a, T>, LiveError>
where
    T: FromBytes + IntoBytes + Copy + 'static,
{
    let map = bpf.map(name).ok_or_else(|| missing(name))?;
    map.try_into().map_err(|error| LiveError::from_map(format!("open {name}"), error, 0))
}

/// All CPUs' values at `index`, by one system call.
fn values<T>(map: &PerCpu<'_, T>, name: &str, index: u32) -> Result<Vec<T>, LiveError>
where
    T: FromBytes + IntoBytes + Copy + 'static,
{
    let values = map.get(&index, 0).map_err(|error| LiveError::from_map(format!("read {name}"), error, 0))?;
    Ok(values.iter().map(|value| value.0).collect())
}

/// An array's descriptor, per CPU or not.
fn descriptor<'a>(bpf: &'a Ebpf, name: &str) -> Result<BorrowedFd<'a>, LiveError> {
    if let Some(Map::Array(data) | Map::PerCpuArray(data)) = bpf.map(name) {
        Ok(data.fd().as_fd())
    } else {
        Err(missing(name))
    }
}

fn missing(name: &str) -> LiveError {
    LiveError::Damaged(format!("it has no {name}"))
}
