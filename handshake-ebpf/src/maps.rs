//! The maps, and the only raw access to them.
//!
//! `FLOWS4`, `FLOWS6`, `SERVICES` and `CONNECTS` are mapped by the agent, which reads them without system
//! calls; after loading all but the per-CPU ones are frozen, so that the programs are their only writers.

use core::cell::{Cell, UnsafeCell};
use core::hint::cold_path;
use core::mem::MaybeUninit;

use aya_ebpf::Global;
use aya_ebpf::bindings::{__sk_buff, BPF_F_MMAPABLE, BPF_F_NO_PREALLOC, BPF_RB_NO_WAKEUP, xdp_md};
use aya_ebpf::btf_maps::{Array, HashMap, PerCpuArray, RingBuf};
use aya_ebpf::helpers::generated::bpf_skb_cgroup_id;
use aya_ebpf::helpers::{bpf_jiffies64, bpf_ktime_get_ns};
use aya_ebpf::macros::btf_map;
use handshake_common::abi::{
    self, BUCKETS, CLASS_WORDS, CLIENTS as CLIENT_WORDS, CURRENT_WORDS, ClassBlock, ClockPair, Config,
    ConnectTimes, ControlGroups, CpuCounts, Event, Flow4, Flow6, Histogram, LOCAL_ADDRESSES, LocalAddress,
    MAKER_WORDS, MAX_INTERFACES, Makers, NEAR_BLOCKS, PORT_WORDS, PortSet, RING_BYTES, ROWS,
    STRIPES as STRIPE_WORDS, Service, TCP_SERVICES, TcpRecord, WAYS, option,
};
use handshake_common::books::{Books, ConnectRow, ServiceRow};
use handshake_common::engine::{self, Explanation, NewOwner, Platform, Table};
use handshake_common::flow::{Address, Family};
use handshake_common::interface::{INTERFACE_PLACES, INTERFACE_ROWS, Interface, row_of};
use handshake_common::masked;
use handshake_common::record::{Clocks, Now};
use handshake_common::shared::Shared64;
use handshake_common::table::{MakerWords, Set, Slot as _, Slot4, Slot6, Tag};
use handshake_common::verdict::Leg;
use handshake_common::wire::{Class, Packet, mark, read_bare4, read_bare6};
use zerocopy::FromBytes;

use crate::frame::Linear;
use crate::handover::{Current, left};
use crate::{evidence, log};

/// Sets when the agent does not say otherwise: 32 MiB and 8 MiB.
const SETS4: usize = 524_288 / WAYS as usize;
const SETS6: usize = 65_536 / WAYS as usize;
const MMAPABLE: usize = BPF_F_MMAPABLE as usize;
const NO_PREALLOC: usize = BPF_F_NO_PREALLOC as usize;

#[btf_map]
static FLOWS4: Array<Set<Flow4>, SETS4, MMAPABLE> = Array::new();
#[btf_map]
static FLOWS6: Array<Set<Flow6>, SETS6, MMAPABLE> = Array::new();
#[btf_map]
static SERVICES: Array<Service, { ROWS as usize }, MMAPABLE> = Array::new();
/// The owners of the records of `FLOWS4`, slot by slot, and of `FLOWS6`.
#[btf_map]
static OWNERS4: Array<ControlGroups, { SETS4 * WAYS as usize }, MMAPABLE> = Array::new();
#[btf_map]
static OWNERS6: Array<ControlGroups, { SETS6 * WAYS as usize }, MMAPABLE> = Array::new();
/// The makers of the same, where they are kept.
#[btf_map]
static MAKERS4: Array<Makers, { SETS4 * WAYS as usize }, MMAPABLE> = Array::new();
#[btf_map]
static MAKERS6: Array<Makers, { SETS6 * WAYS as usize }, MMAPABLE> = Array::new();
/// The completions of the TCP services by time, row by row. Not per CPU: they are rare beside packets.
#[btf_map]
static CONNECTS: Array<ConnectTimes, { TCP_SERVICES as usize }, MMAPABLE> = Array::new();
#[btf_map]
static STRIPES: Array<u64, { STRIPE_WORDS as usize }> = Array::new();
#[btf_map]
static CLIENTS: Array<u64, { CLIENT_WORDS as usize }> = Array::new();
#[btf_map]
static COUNTERS: PerCpuArray<CpuCounts, 1> = PerCpuArray::new();
/// The class blocks of the numbers from [`NEAR_BLOCKS`] on.
#[btf_map]
static CLASSES: PerCpuArray<ClassBlock, { MAX_INTERFACES - NEAR_BLOCKS }> = PerCpuArray::new();
/// The watched interfaces: rows of [`Interface`]. The agent writes them while programs run.
#[btf_map]
static INTERFACES: Array<u64, { INTERFACE_ROWS as usize }> = Array::new();
#[btf_map]
static LATENCY: PerCpuArray<Histogram, { Leg::ALL.len() }> = PerCpuArray::new();
#[btf_map]
static EVENTS: RingBuf<Event, RING_BYTES> = RingBuf::new();
#[btf_map]
static LOCAL: HashMap<LocalAddress, u32, LOCAL_ADDRESSES, NO_PREALLOC> = HashMap::new();
#[btf_map]
static CLOCK: Array<ClockPair, 1, MMAPABLE> = Array::new();

/// [`abi::CONFIG_MAP`].
#[unsafe(no_mangle)]
#[unsafe(link_section = ".data.config")]
static CONFIG: ReadOnly<Config> = ReadOnly::new();

/// [`abi::PORTS_MAP`].
#[unsafe(no_mangle)]
#[unsafe(link_section = ".data.ports")]
static PORTS: ReadOnly<PortSet> = ReadOnly::new();

/// What the agent writes before the programs attach, and never later. A section of its own is a map of
/// its own whose address stands in the code: every packet needs it, and this saves a lookup.
#[repr(transparent)]
struct ReadOnly<T>(UnsafeCell<MaybeUninit<T>>);

// SAFETY: programs only read it.
unsafe impl<T> Sync for ReadOnly<T> {}

impl<T: FromBytes> ReadOnly<T> {
    const fn new() -> Self {
        Self(UnsafeCell::new(MaybeUninit::zeroed()))
    }

    #[inline(always)]
    fn get(&self) -> &T {
        // SAFETY: every bit pattern is a `T`, and none is written while packets come.
        unsafe { (*self.0.get()).assume_init_ref() }
    }
}

/// The layout this object was built with: the agent refuses another than its own.
#[unsafe(no_mangle)]
static HANDSHAKE_LAYOUT: Global<u64> = Global::new(abi::LAYOUT);

/// Is the packet's socket asked for its control group? The agent says so before it loads, and the verifier leaves
/// out what it does not ask for.
#[unsafe(no_mangle)]
static HANDSHAKE_OWNERS: Global<u64> = Global::new(1);

/// Are owners kept?
#[inline(always)]
pub(crate) fn keeps_owners() -> bool {
    HANDSHAKE_OWNERS.load() != 0
}

/// Is the maker of its socket asked for too? Likewise.
#[unsafe(no_mangle)]
static HANDSHAKE_PROCESSES: Global<u64> = Global::new(0);

/// Are the makers of sockets kept?
#[inline(always)]
pub(crate) fn keeps_makers() -> bool {
    HANDSHAKE_PROCESSES.load() != 0
}

/// What a packet's way needs of the maps, found once.
pub(crate) struct Kernel {
    cpu: *mut Cpu,
    /// The packet's interface, where packets are counted.
    interface: Interface,
    /// Where the packet is read again, in a program at a hook.
    hook: Hook,
    /// The control group of the socket that sent it, where it is not the packet's of the general path.
    group: Option<u64>,
    /// One of [`left`]: what the fast path of IPv6 leaves of the packet unless it is done with it.
    left: Cell<u32>,
}

/// The bytes of a [`CpuCounts`]: all that a CPU has for itself. Each step takes a pointer to it, and looks
/// nothing up for it.
#[repr(C)]
pub(crate) struct Cpu {
    books: Books,
    classes: [Classes; NEAR_BLOCKS],
    current: Current,
    reserved: [u64; CURRENT_WORDS - size_of::<Current>() / 8],
}

/// The bytes of a [`ClassBlock`].
type Classes = [Shared64; CLASS_WORDS];

const _: () = assert!(size_of::<Cpu>() == size_of::<CpuCounts>());

/// This CPU's. `None` never happens: the map has its one element. The verifier wants it checked.
#[inline(always)]
pub(crate) fn this_cpu() -> Option<*mut Cpu> {
    COUNTERS.get_ptr_mut(0).map(|cpu| cpu.cast())
}

impl Kernel {
    /// For a step, which counts no packet. `None` for a null pointer, which the verifier wants checked.
    #[inline(always)]
    pub(crate) fn of(cpu: *mut Cpu) -> Option<Self> {
        Self::at(cpu, Interface::default())
    }

    /// For a packet of this interface.
    #[inline(always)]
    pub(crate) fn at(cpu: *mut Cpu, interface: Interface) -> Option<Self> {
        let (hook, group, left) = (Hook::Elsewhere, None, Cell::new(left::ALL));
        if cpu.is_null() { None } else { Some(Self { cpu, interface, hook, group, left }) }
    }

    /// The same in a program at a hook.
    #[inline(always)]
    pub(crate) fn with(self, hook: Hook) -> Self {
        Self { hook, ..self }
    }

    /// The same for a packet on the straight way, whose socket is this control group's.
    #[inline(always)]
    pub(crate) fn straight(cpu: *mut Cpu, interface: Interface, group: u64) -> Option<Self> {
        let kernel = Self::at(cpu, interface)?;
        Some(Self { group: Some(group), ..kernel })
    }

    /// For the packet of the general path.
    #[inline(always)]
    pub(crate) fn in_hand(cpu: *mut Cpu) -> Option<Self> {
        let kernel = Self::of(cpu)?;
        let interface = kernel.current().interface;
        Some(Self { interface, ..kernel })
    }

    /// What the fast path of IPv6 has left.
    #[inline(always)]
    pub(crate) const fn left(&self, is_done: bool) -> u32 {
        if is_done { left::NOTHING } else { self.left.get() }
    }

    #[inline(always)]
    pub(crate) const fn cpu(&self) -> *mut Cpu {
        self.cpu
    }

    /// The packet of the general path.
    #[inline(always)]
    pub(crate) fn current(&self) -> &Current {
        // SAFETY: a `Kernel` has a whole `Cpu`, which only this CPU reaches but for shared words; the general
        // path reads a packet first, and only then shares it.
        unsafe { &(*self.cpu).current }
    }

    /// The same, to read a packet into.
    #[inline(always)]
    #[expect(clippy::mut_from_ref, reason = "the map's value, not a part of this")]
    pub(crate) fn current_mut(&self) -> &mut Current {
        // SAFETY: as above; programs of one CPU do not interrupt each other (softirqs are off at both hooks).
        unsafe { &mut (*self.cpu).current }
    }
}

/// The interface with this index; `None` if it is not watched, and the program is about to be taken off it.
#[inline(always)]
pub(crate) fn interface(index: u32) -> Option<Interface> {
    at_row(index, 0).or_else(|| {
        cold_path();
        Some(Interface(find_interface(index))).filter(|interface| interface.is_known())
    })
}

#[inline(always)]
fn at_row(index: u32, place: u32) -> Option<Interface> {
    // SAFETY: the word is the agent's, and reached as a shared one only.
    let row = unsafe { &*INTERFACES.get_ptr(row_of(index, place))?.cast::<Shared64>() };
    Interface::of_row(row.load(), index)
}

/// Counts a packet of an interface whose class block is not beside the counters. A function of its own: a
/// pointer that is looked up takes a place on the entry's stack.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn count_far(number: u32, place: u32, packets: u64) -> i32 {
    if let Some(classes) = CLASSES.get_ptr_mut(number.wrapping_sub(NEAR_BLOCKS as u32)) {
        // SAFETY: only this CPU writes the bytes.
        engine::add_class(unsafe { &*classes.cast::<Classes>() }, place as usize, packets);
    }
    0
}

/// Looks at all rows that the interface may stand in. A function of its own, which the verifier checks once.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn find_interface(index: u32) -> u32 {
    let mut place = 1;
    while place < INTERFACE_PLACES {
        if let Some(interface) = at_row(index, place) {
            return interface.0;
        }
        place += 1;
    }
    Interface::default().0
}

/// The agent's configuration.
#[inline(always)]
pub(crate) fn config() -> &'static Config {
    CONFIG.get()
}

/// Both clocks as they are, for the agent.
#[inline(always)]
pub(crate) fn read_clocks() {
    if let Some(pair) = CLOCK.get_ptr_mut(0) {
        // SAFETY: the agent runs one clock program at a time, and reads after it.
        unsafe {
            (*pair).now_ns = bpf_ktime_get_ns();
            (*pair).jiffies = bpf_jiffies64();
        }
    }
}

/// The clocks as a test set them, if one did.
#[inline(always)]
fn test_clock() -> Option<ClockPair> {
    if CONFIG.get().options & option::TEST_CLOCK == 0 {
        return None;
    }
    cold_path();
    CLOCK.get(0).copied()
}

impl Platform for Kernel {
    #[inline(always)]
    fn config(&self) -> &Config {
        config()
    }

    #[inline(always)]
    fn now_ns(&self) -> u64 {
        // SAFETY: the helper has no preconditions.
        let now_ns = test_clock().map_or_else(|| unsafe { bpf_ktime_get_ns() }, |clock| clock.now_ns);
        self.current_mut().now_ns = now_ns;
        now_ns
    }

    #[inline(always)]
    fn meet(&self, is_of_open: bool) {
        self.current_mut().met_open = u16::from(is_of_open);
    }

    #[inline(always)]
    fn jiffies(&self) -> u32 {
        // SAFETY: the helper has no preconditions.
        test_clock().map_or_else(|| unsafe { bpf_jiffies64() }, |clock| clock.jiffies) as u32
    }

    #[inline(always)]
    fn set4(&self, index: u32) -> Option<&Set<Slot4>> {
        // SAFETY: the bytes of a `Flow4` are those of a `Slot4` (asserted in `table`), whose words are
        // shared ones: other CPUs may change them at any time.
        FLOWS4.get_ptr(index).map(|set| unsafe { &*set.cast::<Set<Slot4>>() })
    }

    #[inline(always)]
    fn set6(&self, index: u32) -> Option<&Set<Slot6>> {
        // SAFETY: as for `set4`.
        FLOWS6.get_ptr(index).map(|set| unsafe { &*set.cast::<Set<Slot6>>() })
    }

    #[inline(always)]
    fn stripe(&self, index: u32) -> Option<&Shared64> {
        // SAFETY: a lock word is reached as a shared one only.
        STRIPES.get_ptr(index).map(|word| unsafe { &*word.cast::<Shared64>() })
    }

    #[inline(always)]
    fn client(&self, index: u32) -> Option<&Shared64> {
        // SAFETY: a client's word is reached as a shared one only.
        CLIENTS.get_ptr(index).map(|word| unsafe { &*word.cast::<Shared64>() })
    }

    #[inline(always)]
    fn service(&self, row: u32) -> Option<&ServiceRow> {
        // SAFETY: the bytes of a `Service` are those of a `ServiceRow` (asserted in `books`).
        SERVICES.get_ptr(row).map(|row| unsafe { &*row.cast::<ServiceRow>() })
    }

    #[inline(always)]
    fn connects(&self, row: u32) -> Option<&ConnectRow> {
        // SAFETY: the bytes of a `ConnectTimes` are those of a `ConnectRow` (asserted in `books`).
        CONNECTS.get_ptr(row).map(|row| unsafe { &*row.cast::<ConnectRow>() })
    }

    #[inline(always)]
    fn books(&self) -> &Books {
        // SAFETY: a `Kernel` has a whole `Cpu`; the books are shared words.
        unsafe { &(*self.cpu).books }
    }

    #[inline(always)]
    fn count_class(&self, _: &Packet, place: usize, packets: u64) {
        let number = self.interface.number() as usize;
        if number < NEAR_BLOCKS {
            // SAFETY: as above.
            let classes = unsafe { &(*self.cpu).classes[masked::<{ NEAR_BLOCKS - 1 }>(number)] };
            engine::add_class(classes, place, packets);
        } else {
            cold_path();
            count_far(number as u32, place as u32, packets);
        }
    }

    #[inline(always)]
    fn sample(&self, leg: Leg, bucket: u32, samples: u64) {
        if let Some(histogram) = LATENCY.get_ptr_mut(leg as u32) {
            // SAFETY: only this CPU writes its histograms.
            let count = unsafe { &mut (*histogram).buckets[masked::<{ BUCKETS - 1 }>(bucket as usize)] };
            *count = count.wrapping_add(samples);
        }
    }

    #[inline(always)]
    fn wants_explanations(&self) -> bool {
        self.group.is_none() && log::is_on()
    }

    #[inline(always)]
    fn explain(&self, explanation: &Explanation) {
        log::keep(explanation);
    }

    #[inline(always)]
    fn offer(&self, row: u32, worth: u32) -> u32 {
        row_offer(self.cpu, row, worth)
    }

    #[inline(always)]
    fn empty(&self, row: u32) {
        empty_row(self.cpu, row);
    }

    #[inline(always)]
    fn own_row(&self, _: &Packet, tag: Tag, from_responder: bool, jiffies: u32) -> u16 {
        own_row(self.cpu, tag.0, from_responder as u32, jiffies) as u16
    }

    #[inline(always)]
    fn new_row(&self, _: &Packet, request_port: u16, jiffies: u32) -> u32 {
        new_row(self.cpu, u32::from(request_port), jiffies)
    }

    #[inline(always)]
    fn survey<S: Table>(&self, [one, other]: [&Set<S>; 2], now: Now, attempt: bool, unanswered: bool) -> u64 {
        let (one, other) = (core::ptr::from_ref(one), core::ptr::from_ref(other));
        let facts =
            (u32::from(attempt) * survey_fact::ATTEMPT) | (u32::from(unanswered) * survey_fact::UNANSWERED);
        if matches!(S::FAMILY, Family::V4) {
            survey4(one.cast(), other.cast(), now.ns, now.jiffies, facts)
        } else {
            survey6(one.cast(), other.cast(), now.ns, now.jiffies, facts)
        }
    }

    #[inline(always)]
    fn open_straight<S: Table>(&self, _: &Packet) -> bool {
        if matches!(S::FAMILY, Family::V6) {
            self.left.set(left::SYN);
            return false;
        }
        let (cpu, interface) = (self.cpu, self.interface.0);
        0 != match self.hook {
            Hook::Xdp(ctx) if evidence::is_kept() => keep_open_xdp(ctx, cpu, interface),
            Hook::Tc(skb) if evidence::is_kept() => keep_open_skb(skb, cpu, interface),
            Hook::Xdp(ctx) => open_xdp(ctx, cpu, interface),
            Hook::Tc(skb) => open_skb(skb, cpu, interface),
            Hook::Elsewhere => 0,
        }
    }

    #[inline(always)]
    fn answer_straight<S: Table>(&self, _: &Packet) -> bool {
        if matches!(S::FAMILY, Family::V6) {
            self.left.set(left::SYN_ACK);
            return false;
        }
        let (cpu, interface) = (self.cpu, self.interface.0);
        0 != match self.hook {
            Hook::Xdp(ctx) if evidence::is_kept() => keep_answer_xdp(ctx, cpu, interface),
            Hook::Tc(skb) if evidence::is_kept() => keep_answer_skb(skb, cpu, interface),
            Hook::Xdp(ctx) => answer_xdp(ctx, cpu, interface),
            Hook::Tc(skb) => answer_skb(skb, cpu, interface),
            Hook::Elsewhere => 0,
        }
    }

    #[inline(always)]
    fn complete_straight<S: Table>(&self, _: &Packet, (slot, number): (&S, u32), tag: Tag) -> bool {
        if matches!(S::FAMILY, Family::V6) {
            self.current_mut().found = (tag.0, number);
            self.left.set(left::ACK);
            return false;
        }
        let (cpu, interface, slot) = (self.cpu, self.interface.0, core::ptr::from_ref(slot).cast());
        0 != match self.hook {
            Hook::Xdp(ctx) => complete_xdp(ctx, cpu, slot, tag.0, interface),
            Hook::Tc(skb) => complete_skb(skb, cpu, slot, tag.0, interface),
            Hook::Elsewhere => 0,
        }
    }

    #[inline(always)]
    fn give_up(&self, _: &Packet) {
        give_up(self.cpu);
    }

    #[inline(always)]
    fn evict<S: Table>(&self, _: &Packet, (slot, number): (&S, u32), tag: Tag, worth: u32, now_ns: u64) {
        let slot = core::ptr::from_ref(slot);
        let what = u64::from(number) << 32 | u64::from(worth);
        let _ = if matches!(S::FAMILY, Family::V4) {
            evict4(self.cpu, slot.cast(), tag.0, what, now_ns)
        } else {
            evict6(self.cpu, slot.cast(), tag.0, what, now_ns)
        };
    }

    #[inline(always)]
    fn control_group(&self) -> u64 {
        self.group.unwrap_or(self.current().group)
    }

    #[inline(always)]
    fn owners(&self, family: Family, number: u32) -> Option<&[Shared64; 2]> {
        let owners =
            if matches!(family, Family::V4) { OWNERS4.get_ptr(number) } else { OWNERS6.get_ptr(number) };
        // SAFETY: the bytes of an `ControlGroups` are two words, which are reached as shared ones only.
        owners.map(|owners| unsafe { &*owners.cast::<[Shared64; 2]>() })
    }

    #[inline(always)]
    fn maker(&self) -> [u64; MAKER_WORDS] {
        let is_kept = self.group.is_none() && keeps_makers();
        if is_kept { self.current().maker } else { [0; MAKER_WORDS] }
    }

    #[inline(always)]
    fn makers(&self, family: Family, number: u32) -> Option<&MakerWords> {
        if !keeps_makers() {
            return None;
        }
        let makers =
            if matches!(family, Family::V4) { MAKERS4.get_ptr(number) } else { MAKERS6.get_ptr(number) };
        // SAFETY: the bytes of `Makers` are these words, which are reached as shared ones only.
        makers.map(|makers| unsafe { &*makers.cast::<MakerWords>() })
    }

    #[inline(always)]
    fn attribute(&self, family: Family, number: u32, end: NewOwner) {
        if let Some(group) = self.group {
            self.current_mut().group = group;
        }
        attribute(self.cpu, family as u32, number, end.0);
    }

    #[inline(always)]
    fn move_owned(&self, family: Family, number: u32, from: usize, to: usize) {
        move_owned(self.cpu, family as u32, number, from as u32, to as u32);
    }

    #[inline(always)]
    fn judge(&self, stand: u64, record: &mut TcpRecord, packet: &Packet, now_ns: u64) -> u64 {
        judge(packet, record, stand, now_ns)
    }

    #[inline(always)]
    fn wait(&self, word: &Shared64) {
        await_unlocked(word);
    }

    #[inline(always)]
    fn is_selected(&self, port: u16) -> bool {
        let word = PORTS.get()[masked::<{ PORT_WORDS - 1 }>(usize::from(port >> 6))];
        word >> (port & 63) & 1 != 0
    }

    #[inline(always)]
    fn is_local(&self, &address: &Address, family: u8) -> bool {
        LOCAL.get_ptr(LocalAddress { address, family: u64::from(family) }).is_some()
    }

    #[inline(always)]
    fn emit(&self, makers: Option<&MakerWords>, fill: impl FnOnce(&mut MaybeUninit<Event>)) -> bool {
        let behind = if keeps_makers() { size_of::<Makers>() } else { 0 };
        let Some(mut entry) = EVENTS.reserve_bytes(size_of::<Event>() + behind, 0) else { return false };
        // SAFETY: the entry has room for an event, and is aligned to its words.
        fill(unsafe { &mut *entry.as_mut_ptr().cast() });
        if keeps_makers() {
            // SAFETY: it has room for these behind.
            let words: *mut [u64; 2 * MAKER_WORDS] =
                unsafe { entry.as_mut_ptr().add(size_of::<Event>()).cast() };
            let mut place = 0;
            while place < 2 * MAKER_WORDS {
                // SAFETY: a word of them.
                unsafe { (*words)[place] = makers.map_or(0, |makers| makers[place].load()) };
                place += 1;
            }
        }
        // The reader polls: waking it would cost more than all the rest of the packet.
        entry.submit(u64::from(BPF_RB_NO_WAKEUP));
        true
    }
}

/// A function of its own: the verifier checks the search once, and not at each place that begins a flow.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn new_row(cpu: *mut Cpu, request_port: u32, jiffies: u32) -> u32 {
    Kernel::of(cpu)
        .map_or(0, |kernel| engine::new_row(&kernel, &kernel.current().packet, request_port as u16, jiffies))
}

/// A function of its own: rare, and its stack is not the step's then.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn give_up(cpu: *mut Cpu) -> i32 {
    if let Some(kernel) = Kernel::of(cpu) {
        engine::give_up(&kernel, &kernel.current().packet);
    }
    0
}

/// A function of its own, for its stack is not the step's then.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn own_row(cpu: *mut Cpu, tag: u64, from_responder: u32, jiffies: u32) -> u32 {
    let Some(kernel) = Kernel::of(cpu) else { return 0 };
    engine::own_row(&kernel, &kernel.current().packet, Tag(tag), from_responder != 0, jiffies) as u32
}

/// Defines the eviction from a table as a function of its own: the verifier would follow each way through it
/// to the end of the step.
macro_rules! evict {
    ($name:ident, $slot:ty) => {
        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $name(cpu: *mut Cpu, slot: *const $slot, tag: u64, what: u64, now_ns: u64) -> i32 {
            let Some(kernel) = Kernel::of(cpu) else { return 0 };
            if slot.is_null() {
                return 0;
            }
            // SAFETY: not null, and the verifier holds callers to a whole slot.
            let slot = unsafe { &*slot };
            let (number, worth) = ((what >> 32) as u32, what as u32);
            engine::evict(&kernel, &kernel.current().packet, (slot, number), Tag(tag), worth, now_ns);
            0
        }
    };
}

/// Defines what is done with a record's owners as a function of its own: its stack is not the step's then.
macro_rules! owner {
    ($name:ident, |$kernel:ident, $family:ident, $number:ident $(, $more:ident)+| $do:expr) => {
        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $name(cpu: *mut Cpu, family: u32, $number: u32 $(, $more: u32)+) -> i32 {
            let Some($kernel) = Kernel::of(cpu) else { return 0 };
            let $family = if family == Family::V4 as u32 { Family::V4 } else { Family::V6 };
            $do;
            0
        }
    };
}

owner!(attribute, |kernel, family, number, end| {
    engine::attribute(&kernel, family, number, NewOwner(end));
});
owner!(move_owned, |kernel, family, number, from, to| {
    engine::move_owned(&kernel, family, number, from as usize, to as usize);
});

evict!(evict4, Slot4);
evict!(evict6, Slot6);

/// What a survey is told beside the clocks.
mod survey_fact {
    pub(super) const ATTEMPT: u32 = 1;
    pub(super) const UNANSWERED: u32 = 2;
}

/// Defines the survey of two full sets as a function of its own: it has all registers for itself.
macro_rules! survey {
    ($name:ident, $slot:ty) => {
        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $name(
            one: *const Set<$slot>,
            other: *const Set<$slot>,
            now_ns: u64,
            jiffies: u32,
            facts: u32,
        ) -> u64 {
            if one.is_null() || other.is_null() {
                return u64::MAX;
            }
            // SAFETY: neither is null, and the verifier holds callers to whole sets.
            let sets = unsafe { [&*one, &*other] };
            let now = Now { ns: now_ns, jiffies };
            let (attempt, unanswered) =
                (facts & survey_fact::ATTEMPT != 0, facts & survey_fact::UNANSWERED != 0);
            engine::survey(sets, now, &Clocks::of(CONFIG.get()), attempt, unanswered)
        }
    };
}

survey!(survey4, Slot4);
survey!(survey6, Slot6);

/// The rules of TCP as a function of its own: the verifier checks them once, and not once per table.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn judge(packet: *const Packet, record: *mut TcpRecord, stand: u64, now_ns: u64) -> u64 {
    if packet.is_null() || record.is_null() {
        return 0;
    }
    // SAFETY: neither is null, and the verifier holds callers to a whole `Packet` and a whole `TcpRecord`.
    let (packet, record) = unsafe { (&*packet, &mut *record) };
    engine::judge(CONFIG.get(), stand, record, packet, now_ns)
}

/// A function of its own, which the verifier checks once, and not for each row of a service.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn row_offer(cpu: *mut Cpu, row: u32, worth: u32) -> u32 {
    Kernel::of(cpu).map_or(u32::MAX, |kernel| engine::offer(&kernel, row, worth))
}

/// A function of its own: the verifier follows its loop from bucket to bucket.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn empty_row(cpu: *mut Cpu, row: u32) -> i32 {
    if let Some(kernel) = Kernel::of(cpu) {
        engine::empty(&kernel, row);
    }
    0
}

/// A function of its own, which the verifier checks once: inside a step it would follow every number of looks
/// to the step's end. The clock is asked for the time that takes.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn await_unlocked(word: *const Shared64) -> i32 {
    let pause = || {
        // SAFETY: the helper has no preconditions.
        core::hint::black_box(unsafe { bpf_ktime_get_ns() });
    };
    if !word.is_null() {
        // SAFETY: not null, and the verifier holds callers to a whole word.
        engine::wait(unsafe { &*word }, pause);
    }
    0
}

// The straight way of a handshake's segments, as functions of their own: the program at a hook has neither stack
// nor registers for them. They read the segment again, which costs less than to hand it over.

/// Where a packet is.
#[derive(Clone, Copy)]
pub(crate) enum Hook {
    /// At a hook of XDP.
    Xdp(*mut xdp_md),
    /// At a hook of TC.
    Tc(*mut __sk_buff),
    /// Behind the program at the hook.
    Elsewhere,
}

/// A segment as the straight way has it, but for what is in its frame.
#[inline(always)]
fn unread(interface: Interface, class: Class) -> Packet {
    let marks = if interface.is_open() || class as u8 != Class::Syn as u8 { 0 } else { mark::GATED };
    Packet { class: class as u8, marks, ..Packet::unread(interface.point(), 1) }
}

/// Is the packet one segment? At XDP always.
#[inline(always)]
const fn is_one_xdp(_: *mut xdp_md) -> bool {
    true
}

/// The same at TC.
#[inline(always)]
fn is_one_skb(skb: *mut __sk_buff) -> bool {
    // SAFETY: the context is the program's own.
    unsafe { (*skb).gso_segs <= 1 }
}

/// The control group of the socket that sent a packet, which XDP does not know.
#[inline(always)]
const fn group_xdp(_: *mut xdp_md) -> u64 {
    0
}

/// The same at TC.
#[inline(always)]
fn group_skb(skb: *mut __sk_buff) -> u64 {
    // SAFETY: as above.
    if keeps_owners() { unsafe { bpf_skb_cgroup_id(skb) } } else { 0 }
}

/// Defines what a SYN or a SYN+ACK does, at one kind of hook. It counts the packet by its class too.
macro_rules! begins {
    ($name:ident, $ctx:ty, $linear:ident, $is_one:ident, $group:ident, $slot:ty, $read:ident, $step:ident, $class:expr) => {
        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $name(ctx: *mut $ctx, cpu: *mut Cpu, interface: u32) -> i32 {
            let interface = Interface(interface);
            // Before the packet is in registers.
            let group = $group(ctx);
            let Some(kernel) = Kernel::straight(cpu, interface, group) else { return 0 };
            let mut packet = unread(interface, $class);
            if !$is_one(ctx) || !$read(&Linear::$linear(ctx), &mut packet) {
                return 0;
            }
            let is_done = engine::$step::<_, $slot>(&kernel, &packet);
            if is_done {
                let family = <$slot>::FAMILY as u8;
                engine::count_class(&kernel, &Packet { class: $class as u8, family, ..packet });
            }
            i32::from(is_done)
        }
    };
}

begins!(open_xdp, xdp_md, xdp, is_one_xdp, group_xdp, Slot4, read_bare4, open_straight, Class::Syn);
begins!(open_skb, __sk_buff, skb, is_one_skb, group_skb, Slot4, read_bare4, open_straight, Class::Syn);
begins!(answer_xdp, xdp_md, xdp, is_one_xdp, group_xdp, Slot4, read_bare4, answer_straight, Class::SynAck);
begins!(answer_skb, __sk_buff, skb, is_one_skb, group_skb, Slot4, read_bare4, answer_straight, Class::SynAck);
begins!(open6_xdp, xdp_md, xdp, is_one_xdp, group_xdp, Slot6, read_bare6, open_straight, Class::Syn);
begins!(open6_skb, __sk_buff, skb, is_one_skb, group_skb, Slot6, read_bare6, open_straight, Class::Syn);
begins!(answer6_xdp, xdp_md, xdp, is_one_xdp, group_xdp, Slot6, read_bare6, answer_straight, Class::SynAck);
begins!(
    answer6_skb,
    __sk_buff,
    skb,
    is_one_skb,
    group_skb,
    Slot6,
    read_bare6,
    answer_straight,
    Class::SynAck
);

/// Defines the same where packets are kept.
macro_rules! keeps {
    ($name:ident, $ctx:ty, $begins:ident) => {
        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $name(ctx: *mut $ctx, cpu: *mut Cpu, interface: u32) -> i32 {
            let Some(kernel) = Kernel::of(cpu) else { return 0 };
            if $begins(ctx, cpu, interface) == 0 {
                return 0;
            }
            evidence::keep(ctx, kernel.current_mut(), Interface(interface), false);
            1
        }
    };
}

keeps!(keep_open_xdp, xdp_md, open_xdp);
keeps!(keep_open_skb, __sk_buff, open_skb);
keeps!(keep_answer_xdp, xdp_md, answer_xdp);
keeps!(keep_answer_skb, __sk_buff, answer_skb);
keeps!(keep_open6_xdp, xdp_md, open6_xdp);
keeps!(keep_open6_skb, __sk_buff, open6_skb);
keeps!(keep_answer6_xdp, xdp_md, answer6_xdp);
keeps!(keep_answer6_skb, __sk_buff, answer6_skb);

/// Defines what the third segment does, whose record is in this slot under this tag.
macro_rules! completes {
    ($name:ident, $ctx:ty, $linear:ident, $is_one:ident) => {
        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $name(
            ctx: *mut $ctx,
            cpu: *mut Cpu,
            slot: *const Slot4,
            tag: u64,
            interface: u32,
        ) -> i32 {
            let interface = Interface(interface);
            let Some(kernel) = Kernel::straight(cpu, interface, 0) else { return 0 };
            if slot.is_null() {
                return 0;
            }
            // SAFETY: not null, and the verifier holds callers to a whole slot.
            let slot = unsafe { &*slot };
            let mut packet = unread(interface, Class::Ack);
            let is_done = $is_one(ctx)
                && read_bare4(&Linear::$linear(ctx), &mut packet)
                && engine::complete_straight(&kernel, &packet, slot, Tag(tag));
            i32::from(is_done)
        }
    };
}

completes!(complete_xdp, xdp_md, xdp, is_one_xdp);
completes!(complete_skb, __sk_buff, skb, is_one_skb);

/// Defines the same over IPv6, where the fast path has noted the slot. It counts the packet by its class too.
macro_rules! completes6 {
    ($name:ident, $ctx:ty, $linear:ident, $is_one:ident) => {
        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $name(ctx: *mut $ctx, cpu: *mut Cpu, interface: u32) -> i32 {
            let interface = Interface(interface);
            let Some(kernel) = Kernel::straight(cpu, interface, 0) else { return 0 };
            let (tag, number) = kernel.current().found;
            let Some(set) = kernel.set6(number / WAYS) else { return 0 };
            let slot = &set[masked::<{ WAYS as usize - 1 }>(number as usize)];
            let mut packet = unread(interface, Class::Ack);
            let is_done = $is_one(ctx)
                && read_bare6(&Linear::$linear(ctx), &mut packet)
                && engine::complete_straight(&kernel, &packet, slot, Tag(tag));
            if is_done {
                let (class, family) = (Class::Ack as u8, Family::V6 as u8);
                engine::count_class(&kernel, &Packet { class, family, ..packet });
            }
            i32::from(is_done)
        }
    };
}

completes6!(complete6_xdp, xdp_md, xdp, is_one_xdp);
completes6!(complete6_skb, __sk_buff, skb, is_one_skb);

/// Defines how the program at a hook leads a segment over IPv6 straight, if the fast path has left it for that.
macro_rules! leads {
    ($name:ident, $ctx:ty, $open:ident, $keep_open:ident, $answer:ident, $keep_answer:ident, $complete:ident) => {
        #[inline(always)]
        pub(crate) fn $name(left: u32, ctx: *mut $ctx, cpu: *mut Cpu, interface: Interface) -> bool {
            0 != match left {
                left::SYN if evidence::is_kept() => $keep_open(ctx, cpu, interface.0),
                left::SYN => $open(ctx, cpu, interface.0),
                left::SYN_ACK if evidence::is_kept() => $keep_answer(ctx, cpu, interface.0),
                left::SYN_ACK => $answer(ctx, cpu, interface.0),
                left::ACK => $complete(ctx, cpu, interface.0),
                _ => 0,
            }
        }
    };
}

leads!(lead_xdp, xdp_md, open6_xdp, keep_open6_xdp, answer6_xdp, keep_answer6_xdp, complete6_xdp);
leads!(lead_skb, __sk_buff, open6_skb, keep_open6_skb, answer6_skb, keep_answer6_skb, complete6_skb);
