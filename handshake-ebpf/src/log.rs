//! The lines of `-vv`: what the tracker made of each handshake segment, through aya-log.
//!
//! The agent raises aya-log's level only if a filter is set too. At the level 0 the verifier knows that
//! nothing here runs and removes it. The engine leaves its explanation in a per-CPU map, and the line is
//! written once the packet is done, in two steps: what it says is worked out into the map, then formatted
//! from there. Formatting needs the stack for itself, and the verifier would follow it once for each way
//! through the first step.

use aya_ebpf::btf_maps::PerCpuArray;
use aya_ebpf::helpers::bpf_ktime_get_ns;
use aya_ebpf::macros::btf_map;
use aya_log_ebpf::macro_support::{Level, level_enabled};
use aya_log_ebpf::{debug, warn};
use handshake_common::engine::Explanation;
use handshake_common::flow::{Family, Side};
use handshake_common::record::State;
use handshake_common::verdict::Sign;
use handshake_common::wire::{Class, Packet, TCP, flag};

/// Lines per CPU and window of 2³⁰ ns; those above are counted and told with the next window's first.
const LINES: u32 = 200;
const WINDOW_SHIFT: u32 = 30;

/// What is kept per CPU between the engine and the line.
#[repr(C)]
pub(crate) struct Kept {
    isn_initiator: u32,
    isn_responder: u32,
    window: u32,
    lines: u32,
    skipped: u32,
    before: u8,
    after: u8,
    signs: u16,
    /// Bits of [`known`].
    known: u8,
    line: Line,
}

/// What a [`Kept`] holds.
mod known {
    /// An explanation of this packet.
    pub(super) const PACKET: u8 = 1;
    pub(super) const INITIATOR: u8 = 2;
    pub(super) const RESPONDER: u8 = 4;
    /// The segment is the responder's.
    pub(super) const BY_RESPONDER: u8 = 8;
}

#[btf_map]
static EXPLAINED: PerCpuArray<Kept, 1> = PerCpuArray::new();

/// Are lines wanted? The verifier knows.
#[inline(always)]
pub(crate) fn is_on() -> bool {
    level_enabled(Level::Debug)
}

#[inline(always)]
fn kept() -> Option<&'static mut Kept> {
    // SAFETY: only this CPU has it, and its programs do not interrupt each other (softirqs are off at both
    // hooks).
    EXPLAINED.get_ptr_mut(0).map(|kept| unsafe { &mut *kept })
}

/// Keeps an explanation until the packet is done.
#[inline(always)]
pub(crate) fn keep(explanation: &Explanation) {
    let Some(kept) = kept() else { return };
    kept.before = explanation.before as u8;
    kept.after = explanation.after as u8;
    kept.signs = explanation.signs;
    kept.known = known::PACKET;
    if let Some(isn) = explanation.isn_initiator {
        kept.isn_initiator = isn;
        kept.known |= known::INITIATOR;
    }
    if let Some(isn) = explanation.isn_responder {
        kept.isn_responder = isn;
        kept.known |= known::RESPONDER;
    }
    if matches!(explanation.side, Side::Responder) {
        kept.known |= known::BY_RESPONDER;
    }
}

/// Names of equal length: a copy whose length the verifier knows is no loop.
type Names<const ROWS: usize, const LENGTH: usize> = [[u8; LENGTH]; ROWS];

const fn padded<const LENGTH: usize>(name: &str) -> [u8; LENGTH] {
    let (mut padded, mut i) = ([b' '; LENGTH], 0);
    while i < name.len() {
        padded[i] = name.as_bytes()[i];
        i += 1;
    }
    padded
}

static STATES: Names<16, 17> = {
    let (mut names, mut i) = ([[b' '; 17]; 16], 0);
    while i < State::ALL.len() {
        names[i] = padded(State::ALL[i].name());
        i += 1;
    }
    names
};
static SIGNS: Names<16, 19> = {
    let (mut names, mut i) = ([[b' '; 19]; 16], 0);
    while i < Sign::ALL.len() {
        names[i + 1] = padded(Sign::ALL[i].name());
        i += 1;
    }
    names
};
static CLASSES: Names<4, 7> = [padded("SYN"), padded("SYN+ACK"), padded("ACK"), padded("RST")];
static BASES: Names<8, 2> = [*b"J+", *b"J-", *b"K+", *b"K-", *b"# ", [b' '; 2], [b' '; 2], [b' '; 2]];

/// One of the names as text.
#[inline(always)]
fn name<const ROWS: usize, const LENGTH: usize>(
    names: &'static Names<ROWS, LENGTH>,
    row: u32,
) -> &'static str {
    let row = &names[row as usize & (ROWS - 1)];
    // SAFETY: the tables above hold ASCII.
    unsafe { core::str::from_utf8_unchecked(row) }
}

/// A number as what it is relative to, and how far from it.
#[inline(always)]
fn relative(number: u32, isn: u32, is_known: bool, base: u32) -> (u32, u32) {
    if !is_known {
        return (4, number);
    }
    let distance = number.wrapping_sub(isn);
    if distance >> 31 == 0 { (base, distance) } else { (base + 1, distance.wrapping_neg()) }
}

/// What a line says: places in the tables of names, and numbers.
#[repr(C)]
#[derive(Clone, Copy)]
struct Line {
    seq: u32,
    ack: u32,
    seq_base: u32,
    ack_base: u32,
    class: u32,
    before: u32,
    after: u32,
    sign: u32,
}

/// Works the line out. `false` if the segment is no part of a handshake, or the line would be one too many.
#[inline(always)]
fn work_out(packet: &Packet, kept: &mut Kept) -> bool {
    let known = core::mem::take(&mut kept.known);
    if known & known::PACKET == 0 || packet.protocol != TCP {
        return false;
    }
    let Some(class) = class(packet, kept) else { return false };
    let (j, k) = (kept.isn_initiator, kept.isn_responder);
    let (knows_j, knows_k) = (known & known::INITIATOR != 0, known & known::RESPONDER != 0);
    let (own, peer) = ((j, knows_j, 0), (k, knows_k, 2));
    let (own, peer) = if known & known::BY_RESPONDER != 0 { (peer, own) } else { (own, peer) };
    let has_ack = packet.flags & flag::ACK != 0;
    let (seq_base, seq) = relative(packet.seq, own.0, own.1, own.2);
    let (ack_base, ack) = relative(packet.ack, peer.0, peer.1 && has_ack, peer.2);
    let (before, after) = (kept.before.into(), kept.after.into());
    kept.line = Line { seq, ack, seq_base, ack_base, class, before, after, sign: sign(kept.signs) };
    is_in_time(kept)
}

/// The place in [`CLASSES`] of a handshake segment: SYN, SYN+ACK, RST, and the ACK that completes or is bad.
#[inline(always)]
fn class(packet: &Packet, kept: &Kept) -> Option<u32> {
    if packet.class == Class::Syn as u8 {
        Some(0)
    } else if packet.class == Class::SynAck as u8 {
        Some(1)
    } else if packet.class == Class::Rst as u8 {
        Some(3)
    } else {
        let completes = kept.after == State::Established as u8 && kept.before != kept.after;
        (completes || kept.signs & 1 << Sign::BadAck as u8 != 0).then_some(2)
    }
}

/// The place in [`SIGNS`] of the first sign in a set, 0 for none.
#[inline(always)]
fn sign(signs: u16) -> u32 {
    let mut i = 0;
    while i < Sign::ALL.len() as u32 {
        if signs >> i & 1 != 0 {
            return i + 1;
        }
        i += 1;
    }
    0
}

/// Is there room for a line in this window?
#[inline(always)]
fn is_in_time(kept: &mut Kept) -> bool {
    // SAFETY: the helper has no preconditions.
    let window = (unsafe { bpf_ktime_get_ns() } >> WINDOW_SHIFT) as u32;
    if window != kept.window {
        kept.window = window;
        kept.lines = 0;
    }
    kept.lines += 1;
    let is_in_time = kept.lines <= LINES;
    kept.skipped += !is_in_time as u32;
    is_in_time
}

/// Writes the line of a packet, if it is worth one.
#[inline(always)]
pub(crate) fn explain(packet: &Packet) {
    match prepare(packet) {
        4 => line4(packet),
        6 => line6(packet),
        _ => 0,
    };
}

/// Works out the line of a packet; the version of its IP if there is a line to write.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn prepare(packet: *const Packet) -> i32 {
    let Some(kept) = kept() else { return 0 };
    if packet.is_null() {
        return 0;
    }
    // SAFETY: not null, and the verifier holds callers to a whole `Packet`.
    let packet = unsafe { &*packet };
    if !work_out(packet, kept) {
        0
    } else if packet.family == Family::V4 as u8 {
        4
    } else {
        6
    }
}

/// Tells how many lines are left out since it was told last.
#[inline(always)]
fn tell_skipped(kept: &mut Kept) {
    if kept.skipped != 0 {
        warn!((), "{} lines are left out: {} per second and CPU at most", kept.skipped, LINES);
        kept.skipped = 0;
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn line4(packet: *const Packet) -> i32 {
    let Some(kept) = kept() else { return 0 };
    if packet.is_null() {
        return 0;
    }
    // SAFETY: not null, and the verifier holds callers to a whole `Packet`.
    let packet = unsafe { &*packet };
    tell_skipped(kept);
    let line = &kept.line;
    debug!(
        (),
        "{:i}:{} > {:i}:{} {} seq={}{} ack={}{} {} -> {} {}",
        packet.source.number(),
        packet.source_port,
        packet.destination.number(),
        packet.destination_port,
        name(&CLASSES, line.class),
        name(&BASES, line.seq_base),
        line.seq,
        name(&BASES, line.ack_base),
        line.ack,
        name(&STATES, line.before),
        name(&STATES, line.after),
        name(&SIGNS, line.sign)
    );
    0
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn line6(packet: *const Packet) -> i32 {
    let Some(kept) = kept() else { return 0 };
    if packet.is_null() {
        return 0;
    }
    // SAFETY: not null, and the verifier holds callers to a whole `Packet`.
    let packet = unsafe { &*packet };
    tell_skipped(kept);
    let line = &kept.line;
    debug!(
        (),
        "[{:i}]:{} > [{:i}]:{} {} seq={}{} ack={}{} {} -> {} {}",
        packet.source.bytes(),
        packet.source_port,
        packet.destination.bytes(),
        packet.destination_port,
        name(&CLASSES, line.class),
        name(&BASES, line.seq_base),
        line.seq,
        name(&BASES, line.ack_base),
        line.ack,
        name(&STATES, line.before),
        name(&STATES, line.after),
        name(&SIGNS, line.sign)
    );
    0
}
