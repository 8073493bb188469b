//! The kernel as a source: loads the BPF object, sizes, fills and freezes its maps, and reads them. The
//! programs are attached elsewhere; from then on the kernel is the only writer.
//!
//! ```text
//! Settings ─▶ .data.* ─▶ freeze ─▶ attach ─▶ programs ─▶ COUNTERS, CLASSES, LATENCY   one system call each
//!                                                     ├──────▶ FLOWS4, FLOWS6, SERVICES, CONNECTS   mapped: none
//!                                                     └──────▶ EVENTS                       polled
//! ```

mod clock;
mod counters;
mod evidence;
mod interfaces;
mod kernel_log;
mod mapping;
mod maps;
mod object;
#[cfg(test)]
mod tests;

use std::io;
use std::net::IpAddr;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

use aya::Ebpf;
use aya::maps::{MapData, RingBuf};
use handshake_common::abi::{
    BUCKETS, CLASS_WORDS, ClassBlock, ClockPair, CounterBlock, CpuCounts, Event, Histogram, KeptPacket,
    Makers, NEAR_BLOCKS, RING_BYTES, ROWS, TCP_SERVICES,
};
use handshake_common::books::{ConnectRow, ServiceRow};
use handshake_common::record::{Clocks, Now, Record};
use handshake_common::shared::Shared64;
use handshake_common::table::{self, BesideTable, MakerWords, Slot, Slot4, Slot6};
use handshake_common::verdict::Leg;
use zerocopy::FromBytes;

use crate::hook::{HookLook, HookState, InterfaceLook};
use crate::source::local::HostAddresses;
use crate::source::opens::OpensFile;
use crate::source::scan::{Onlooker, Scan};
use crate::source::settings::{Settings, Sizes, WatchedInterface};
use crate::source::sight::Sight;
use crate::source::{LostBeforeHook, Reading, ServiceReading, Source};

use crate::error::{Error, LiveError};
use clock::Clock;
pub use clock::wall_ns;
use evidence::{KeptPackets, slots_of_each};
use interfaces::Interfaces;
pub use kernel_log::KernelLog;
use mapping::Mapping;
pub use maps::{ObjectChanges, possible_cpus};
use maps::{map_array, per_cpu, take, values};

/// The kernel's statistics of one of our programs, while they are on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramRuns {
    /// The program's id.
    pub id: u32,
    /// The program's name in the object.
    pub name: String,
    /// The number of runs.
    pub runs: u64,
    /// The time of all runs together, ns.
    pub ns: u64,
}

/// The loaded object and its maps. Dropping it closes the maps; links are kept by the module that attached
/// them.
pub struct Live {
    bpf: Ebpf,
    clock: Clock,
    flows4: Mapping<Slot4>,
    flows6: Mapping<Slot6>,
    owners4: Mapping<[Shared64; 2]>,
    owners6: Mapping<[Shared64; 2]>,
    /// Where they are kept, as the next.
    makers4: Option<Mapping<MakerWords>>,
    makers6: Option<Mapping<MakerWords>>,
    services: Mapping<ServiceRow>,
    kept: Option<KeptPackets>,
    connects: Mapping<ConnectRow>,
    events: Option<RingBuf<MapData>>,
    kernel_log: Option<KernelLog>,
    clocks: Clocks,
    interfaces: Interfaces,
    test_clock: bool,
    missed_snapshots: u64,
    hooks: Box<dyn Hooks>,
    sight: Sight,
    opens: Option<OpensFile>,
    addresses: Box<dyn FnMut() -> Option<Vec<IpAddr>> + Send + Sync>,
    host: Arc<HostAddresses>,
}

impl Live {
    /// Creates the maps of `elf`, measures the rate of the kernel's clock, and fills and freezes the maps.
    /// Loads only the clock's program; the others are loaded when they are attached, through
    /// [`programs`](KernelSide::programs).
    ///
    /// Takes about 50 ms, to measure the clock.
    ///
    /// # Errors
    ///
    /// A [`LiveError`]: the object does not fit this agent, or the kernel refuses to create or freeze the
    /// maps.
    pub fn load(elf: &[u8], settings: &Settings) -> Result<Self, LiveError> {
        object::check_layout(elf)?;
        let sizes = Sizes::for_flows(settings.max_flows);
        let bytes = sizes.bytes(possible_cpus()?, settings.interfaces, settings.events, settings.processes);
        let mut bpf = maps::create(elf, settings, sizes, bytes)?;
        let clock = Clock::start(&mut bpf)?;
        let hz = clock::measure_hz(|| clock.read(&bpf), std::thread::sleep)?;
        let clocks = settings.clocks(hz);
        maps::fill(&mut bpf, settings, sizes, hz)?;
        maps::freeze(&bpf, settings.test_clock)?;
        Ok(Self {
            clock,
            flows4: map_array(&bpf, "FLOWS4", sizes.slots4 as usize)?,
            flows6: map_array(&bpf, "FLOWS6", sizes.slots6 as usize)?,
            owners4: map_array(&bpf, "OWNERS4", sizes.slots4 as usize)?,
            owners6: map_array(&bpf, "OWNERS6", sizes.slots6 as usize)?,
            makers4: settings
                .processes
                .then(|| map_array(&bpf, "MAKERS4", sizes.slots4 as usize))
                .transpose()?,
            makers6: settings
                .processes
                .then(|| map_array(&bpf, "MAKERS6", sizes.slots6 as usize))
                .transpose()?,
            services: map_array(&bpf, "SERVICES", ROWS as usize)?,
            connects: map_array(&bpf, "CONNECTS", TCP_SERVICES as usize)?,
            kept: kept_packets(&bpf, settings)?,
            events: settings.events.then(|| take(&mut bpf, "EVENTS")).transpose()?,
            kernel_log: settings.kernel_log.then(|| KernelLog::new(&mut bpf)).transpose()?,
            clocks,
            interfaces: Interfaces::new(settings.interfaces),
            test_clock: settings.test_clock,
            missed_snapshots: 0,
            hooks: Box::new(NoHooks),
            sight: Sight::default(),
            opens: OpensFile::open(),
            addresses: Box::new(|| None),
            host: Arc::default(),
            bpf,
        })
    }

    /// Counts a reading that failed for the moment; later readings have the sum.
    pub const fn count_missed(&mut self) {
        self.missed_snapshots += 1;
    }

    /// Hands over the hooks that the programs are on, which each reading looks at. They are dropped with the
    /// rest.
    pub fn watch(&mut self, hooks: impl Hooks + 'static) {
        self.hooks = Box::new(hooks);
    }

    /// Looks at the hooks, attaches again what was lost, and returns what all looks have found. While a hook
    /// of an interface is lost, no attempt begins there: half of its handshake would pass unseen.
    ///
    /// # Errors
    ///
    /// A [`LiveError`]: the kernel refuses to change a gate, or to answer for the moment.
    pub fn look(&mut self) -> Result<&Sight, LiveError> {
        let now = self.now()?;
        self.look_at(now.now_ns)
    }

    /// What the looks have found so far.
    #[must_use]
    pub const fn sight(&self) -> &Sight {
        &self.sight
    }

    fn look_at(&mut self, now_ns: u64) -> Result<&Sight, LiveError> {
        let mut looks = self.hooks.look();
        let passing = looks.iter().flat_map(|look| &look.hooks).find_map(HookLook::passing);
        for look in &mut looks {
            let Some(number) = look.number else { continue };
            if look.hooks.iter().any(HookLook::stays_lost) {
                self.set_gate(number, false)?;
                self.hooks.attach_again(look);
            }
            let is_lost = |hook: &HookLook| hook.state == HookState::Gone && hook.stays_lost();
            if !look.hooks.iter().any(is_lost) {
                self.set_gate(number, true)?;
            }
        }
        // What the other hooks' looks found is noted all the same: a guard tells it once.
        self.sight.note(looks, now_ns);
        match passing.map(io::Error::from_raw_os_error) {
            Some(source) => Err(LiveError::Passing { what: "look at the hooks".to_owned(), source }),
            None => Ok(&self.sight),
        }
    }

    /// Sets the function that lists this host's addresses, and calls it: it is called again at each reading,
    /// because addresses change. `None`: they could not be read, and the last ones stay.
    ///
    /// # Errors
    ///
    /// A [`LiveError`]: the kernel refuses to change the map.
    pub fn know_addresses_by(
        &mut self,
        addresses: impl FnMut() -> Option<Vec<IpAddr>> + Send + Sync + 'static,
    ) -> Result<(), LiveError> {
        self.addresses = Box::new(addresses);
        self.refresh_addresses()
    }

    /// This host's addresses, as of the latest reading.
    pub const fn host(&self) -> &Arc<HostAddresses> {
        &self.host
    }

    fn refresh_addresses(&mut self) -> Result<(), LiveError> {
        let Some(addresses) = (self.addresses)() else { return Ok(()) };
        let host = HostAddresses::of(addresses);
        if host != *self.host {
            maps::change_local(&mut self.bpf, self.host.all(), host.all())?;
            self.host = Arc::new(host);
        }
        Ok(())
    }

    /// Calls `visit` with each packet of an open attempt that is still kept. There are none unless
    /// [`Settings::evidence`] is set.
    pub fn for_each_kept(&self, visit: &mut dyn FnMut(&KeptPacket)) {
        if let Some(kept) = &self.kept {
            kept.each(visit);
        }
    }

    /// The reader of the kernel side's diagnostics, if [`Settings::kernel_log`] is set; `None` from the
    /// second call on.
    pub fn take_kernel_log(&mut self) -> Option<KernelLog> {
        self.kernel_log.take()
    }

    /// Takes the available events out of the ring, in order, but at most one ring's worth: a visitor slower
    /// than the incoming events must not keep the agent from its other work. The ring wakes no reader, so
    /// call this at every interval and at short intervals between; a ring that is full meanwhile counts
    /// `lost_events`. `Break` leaves the rest in the ring.
    pub fn drain_events(&mut self, visit: &mut dyn FnMut(&Event, Makers) -> ControlFlow<()>) {
        let Some(ring) = &mut self.events else { return };
        for _ in 0..RING_BYTES / size_of::<Event>() {
            let Some(bytes) = ring.next() else { return };
            // Copied, because records in the ring are aligned to eight bytes, and events to a cache line.
            let Ok((event, behind)) = Event::read_from_prefix(&bytes) else { continue };
            let makers = Makers::read_from_bytes(behind).unwrap_or_default().known();
            if visit(&event, makers).is_break() {
                return;
            }
        }
    }

    /// Sets from which age on later readings call an attempt half-open. The programs keep theirs.
    pub const fn set_half_open_after(&mut self, ns: u64) {
        self.clocks.half_open_after_ns = ns;
    }

    /// Sets the clocks of programs that were loaded with [`Settings::test_clock`].
    #[cfg(test)]
    pub fn set_test_clock(&mut self, time: ClockPair) -> Result<(), LiveError> {
        maps::set(&mut self.bpf, "CLOCK", &[maps::PlainBytes(time)])
    }

    /// The kernel's statistics of the programs that see packets, by id. A program whose statistics cannot be
    /// read is left out.
    pub fn program_runs(&self) -> Vec<ProgramRuns> {
        let seen = self.bpf.programs().filter(|(name, _)| *name != clock::PROGRAM);
        let runs = seen.filter_map(|(name, program)| {
            let info = program.info().ok()?;
            let ns = u64::try_from(info.run_time().as_nanos()).unwrap_or(u64::MAX);
            Some(ProgramRuns { id: info.id(), name: name.to_owned(), runs: info.run_count(), ns })
        });
        let mut all: Vec<ProgramRuns> = runs.collect();
        all.sort_by_key(|program| program.id);
        all
    }

    /// The time on the records' clocks, and the same time on the wall clock, ns since the Unix epoch.
    ///
    /// # Errors
    ///
    /// A [`LiveError`]: the clocks cannot be read.
    pub fn time(&self) -> Result<(Now, u64), LiveError> {
        let now = self.now()?;
        Ok((Now { ns: now.now_ns, jiffies: low_half(now.jiffies) }, wall_ns(now.now_ns)))
    }

    /// What is kept beside the slots of both tables.
    fn beside(&self) -> [BesideTable<'_>; 2] {
        let [makers4, makers6] = [&self.makers4, &self.makers6].map(|makers| makers.as_deref());
        [
            BesideTable { owners: &self.owners4, makers: makers4.unwrap_or_default() },
            BesideTable { owners: &self.owners6, makers: makers6.unwrap_or_default() },
        ]
    }

    /// What the programs have counted, over all CPUs, at once: of a pair that is under way it may have the half,
    /// so the sums need not balance.
    ///
    /// # Errors
    ///
    /// A [`LiveError`]: the counters cannot be read.
    pub fn counted(&self) -> Result<CounterBlock, LiveError> {
        let cpus = values(&per_cpu::<CpuCounts>(&self.bpf, "COUNTERS")?, "COUNTERS", 0)?;
        Ok(counters::sum(cpus.iter().map(|cpu| &cpu.counters)))
    }

    fn now(&self) -> Result<ClockPair, LiveError> {
        if self.test_clock { Ok(self.clock.standing()) } else { self.clock.read(&self.bpf) }
    }
}

/// The programs, and the interfaces that they know. A program that sees a packet of another interface leaves
/// it alone.
pub trait KernelSide {
    /// The object with its programs, for loading and attaching.
    fn programs(&mut self) -> &mut Ebpf;
    /// Adds an interface, before the programs are attached to it. No attempt begins there yet. Returns the
    /// number of its packet counters.
    ///
    /// # Errors
    ///
    /// [`LiveError::NoRoom`]; the kernel refuses to change the map.
    fn enter(&mut self, interface: WatchedInterface) -> Result<u16, LiveError>;
    /// Lets attempts begin on an interface, or not: all its hooks must be on.
    ///
    /// # Errors
    ///
    /// The kernel refuses to change the map.
    fn set_gate(&mut self, number: u16, open: bool) -> Result<(), LiveError>;
    /// Removes an interface, after the programs were taken off it. What it has counted stays in the sums.
    ///
    /// # Errors
    ///
    /// The kernel refuses to change the map.
    fn leave(&mut self, number: u16) -> Result<(), LiveError>;
}

impl KernelSide for Live {
    fn programs(&mut self) -> &mut Ebpf {
        &mut self.bpf
    }

    fn enter(&mut self, interface: WatchedInterface) -> Result<u16, LiveError> {
        let next = self.interfaces.next_number().ok_or(LiveError::NoRoom)?;
        let before = read_classes(&self.bpf, next)?;
        let entry = self.interfaces.enter(interface, before).ok_or(LiveError::NoRoom)?;
        maps::set_interface(&mut self.bpf, entry.row, entry.word())?;
        Ok(entry.number)
    }

    fn set_gate(&mut self, number: u16, open: bool) -> Result<(), LiveError> {
        match self.interfaces.set_gate(number, open) {
            Some(entry) => maps::set_interface(&mut self.bpf, entry.row, entry.word()),
            None => Ok(()),
        }
    }

    fn leave(&mut self, number: u16) -> Result<(), LiveError> {
        match self.interfaces.leave(number, Instant::now()) {
            Some(row) => maps::set_interface(&mut self.bpf, row, 0),
            None => Ok(()),
        }
    }
}

/// The hooks that the programs are on.
pub trait Hooks: Send + Sync {
    /// Looks at every hook.
    fn look(&mut self) -> Vec<InterfaceLook>;
    /// Attaches again what this look at an interface found lost, where that is possible, and notes it in the
    /// look.
    fn attach_again(&mut self, look: &mut InterfaceLook);
    /// The packets that the interfaces have lost before the hooks, since they were attached to: as of the
    /// latest look.
    fn lost_before_hook(&self) -> LostBeforeHook;
}

/// Those of programs that are not attached.
struct NoHooks;

impl Hooks for NoHooks {
    fn look(&mut self) -> Vec<InterfaceLook> {
        Vec::new()
    }

    fn attach_again(&mut self, _: &mut InterfaceLook) {}

    fn lost_before_hook(&self) -> LostBeforeHook {
        LostBeforeHook::default()
    }
}

impl Source for Live {
    /// Reads the clock first, so that nothing in the counters or tables is younger than `now` by more than
    /// the duration of the reading.
    fn read(&mut self) -> Result<Reading, Error> {
        self.refresh_addresses()?;
        let (now, wall_ns) = self.time()?;
        let [syn_to_syn_ack, syn_ack_to_ack, connect, first_byte] = Leg::ALL;
        // Before the counters, so that these have the segments of what the kernel has opened, and the attempt of
        // each time.
        let opens = self.opens.as_ref().and_then(OpensFile::read);
        let histograms = Box::new([
            read_histogram(&self.bpf, syn_to_syn_ack)?,
            read_histogram(&self.bpf, syn_ack_to_ack)?,
            read_histogram(&self.bpf, connect)?,
            read_histogram(&self.bpf, first_byte)?,
        ]);
        let (counters, near) = read_counts(&self.bpf)?;
        let Self { bpf, interfaces, .. } = self;
        let (classes, gone) =
            interfaces.count(Instant::now(), |number| match near.get(usize::from(number)) {
                Some(block) => Ok(*block),
                None => read_far(bpf, number),
            })?;
        // After the counters: whatever they lack was lost before this look.
        let sight = self.look_at(now.ns)?.clone();
        let lost = self.hooks.lost_before_hook();
        Ok(Reading {
            now,
            wall_ns,
            stopped: false,
            counters,
            classes,
            gone,
            histograms,
            slots: (self.flows4.len() + self.flows6.len()) as u64,
            lost_before_hook: lost.packets,
            unreadable_counters: lost.unreadable,
            missed_snapshots: self.missed_snapshots,
            sight,
            opens,
        })
    }

    fn scan(&self, now: Now, mut onlooker: Option<&mut Onlooker<'_>>) -> Scan {
        let mut scan = Scan::at(now, self.clocks, Arc::clone(&self.host));
        let [beside4, beside6] = self.beside();
        scan.add_table(&self.flows4, beside4, onlooker.as_deref_mut());
        scan.add_table(&self.flows6, beside6, onlooker);
        scan
    }

    fn for_each_record(&self, visit: &mut dyn FnMut(&Record)) {
        let [beside4, beside6] = self.beside();
        visit_slots(&self.flows4, beside4, visit);
        visit_slots(&self.flows6, beside6, visit);
    }

    fn services(&self) -> Vec<ServiceReading> {
        super::service_rows(&self.services, &self.connects)
    }

    fn workloads(&self) -> Vec<ServiceReading> {
        super::workload_rows(&self.services)
    }

    fn clocks(&self) -> Clocks {
        self.clocks
    }
}

/// The packets that are kept, where they are.
fn kept_packets(bpf: &Ebpf, settings: &Settings) -> Result<Option<KeptPackets>, LiveError> {
    if !settings.evidence {
        return Ok(None);
    }
    let cpus = possible_cpus()?;
    let each = slots_of_each(cpus);
    let slots = map_array(bpf, "EVIDENCE", each as usize * cpus)?;
    Ok(Some(KeptPackets(slots)))
}

/// Reads one balanced counter block (see [`counters`]), and the class blocks beside it, summed over the CPUs.
fn read_counts(bpf: &Ebpf) -> Result<(CounterBlock, [ClassBlock; NEAR_BLOCKS]), LiveError> {
    let map = per_cpu::<CpuCounts>(bpf, "COUNTERS")?;
    let mut cpus = Vec::new();
    let read = || {
        cpus = values(&map, "COUNTERS", 0)?;
        Ok(cpus.iter().map(|cpu| cpu.counters).collect::<Vec<_>>())
    };
    let counters = counters::settle(read, std::thread::sleep)?;
    Ok((counters, near(&cpus)))
}

/// The class blocks beside the counters, summed over the CPUs.
fn near(cpus: &[CpuCounts]) -> [ClassBlock; NEAR_BLOCKS] {
    let mut sums = [ClassBlock { packets: [0; CLASS_WORDS] }; NEAR_BLOCKS];
    for cpu in cpus {
        sums.iter_mut().zip(&cpu.classes).for_each(|(sum, block)| add(&mut sum.packets, &block.packets));
    }
    sums
}

/// Reads the class block of an interface's number, summed over the CPUs.
fn read_classes(bpf: &Ebpf, number: u16) -> Result<ClassBlock, LiveError> {
    let near = near(&values(&per_cpu::<CpuCounts>(bpf, "COUNTERS")?, "COUNTERS", 0)?);
    near.get(usize::from(number)).map_or_else(|| read_far(bpf, number), |block| Ok(*block))
}

/// The same of a number whose block is not beside the counters.
fn read_far(bpf: &Ebpf, number: u16) -> Result<ClassBlock, LiveError> {
    let map = per_cpu::<ClassBlock>(bpf, "CLASSES")?;
    let mut sum = ClassBlock { packets: [0; CLASS_WORDS] };
    let place = u32::from(number).saturating_sub(low_half(NEAR_BLOCKS as u64));
    let cpus = values(&map, "CLASSES", place)?;
    cpus.iter().for_each(|block| add(&mut sum.packets, &block.packets));
    Ok(sum)
}

fn read_histogram(bpf: &Ebpf, leg: Leg) -> Result<Histogram, LiveError> {
    let map = per_cpu::<Histogram>(bpf, "LATENCY")?;
    let mut sum = Histogram { buckets: [0; BUCKETS] };
    values(&map, "LATENCY", leg as u32)?.iter().for_each(|part| add(&mut sum.buckets, &part.buckets));
    Ok(sum)
}

fn visit_slots<S: Slot>(slots: &[S], beside: BesideTable<'_>, visit: &mut dyn FnMut(&Record)) {
    for (slot, number) in slots.iter().zip(0..) {
        if let Some(record) = table::read_beside(slot, beside.slot(number)) {
            visit(&record);
        }
    }
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
