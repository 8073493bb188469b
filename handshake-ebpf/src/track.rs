//! The way of a packet through the kernel side: parse → count → track.
//!
//! Parsing and tracking are global functions: the verifier checks each once, for any arguments.

use aya_ebpf::bindings::{__sk_buff, xdp_md};
use handshake_common::abi::{option, point};
use handshake_common::engine::{self, FastPath, Platform, StepResult};
use handshake_common::flow::Family;
use handshake_common::table::{Slot4, Slot6};
use handshake_common::wire::{Class, Packet, PacketSink, ParseOnly, note, parse_plain4, parse_plain6};

use crate::frame::{Context, Linear};
use crate::maps::Kernel;
use crate::{frame, log, packet};

/// A frame at XDP. Plain IPv4 of a known flow is done here, other plain frames one call further, and
/// the rest by the general path: each has its own stack, and they do not add up.
#[inline(always)]
pub(crate) fn xdp(ctx: *mut xdp_md) {
    let Some(kernel) = Kernel::new() else { return };
    let point = xdp_point(&kernel, ctx);
    let mut packet = Packet::unread(point, 1);
    if parse_plain4(&Linear::xdp(ctx), &mut packet, FastPath::<_, Slot4>::new(&kernel)) {
        return;
    }
    let is_ipv4 = packet.family == Family::V4 as u8;
    if !is_ipv4 && plain_xdp(ctx, point as u32) != 0 {
        return;
    }
    if !is_ipv4 || !read_plain4(&Linear::xdp(ctx), point, 1) {
        general_xdp(ctx);
    }
    observe(&kernel, || verify_xdp(ctx));
    explain();
}

/// Writes the line of `-vv`, where it is wanted. Called last: nothing else is on the stack then.
#[inline(always)]
fn explain() {
    if log::is_on() {
        log::explain();
    }
}

/// Plain IPv4 of which more is wanted than to be counted: handshakes nearly always, and a flood of SYNs. Read
/// again, into memory: that costs less than to keep all of every packet until it is known whether it is such
/// a one. `false`: it is not plain.
#[inline(always)]
fn read_plain4<C: Context>(frame: &Linear<C>, point: u8, segments: u16) -> bool {
    let Some(packet) = packet::packet() else { return true };
    frame::clear(packet);
    (packet.point, packet.segments) = (point, segments);
    parse_plain4(frame, packet, ParseOnly)
}

#[inline(always)]
fn xdp_point(kernel: &Kernel, ctx: *mut xdp_md) -> u8 {
    // SAFETY: the context is the program's own.
    point(kernel.interface(unsafe { (*ctx).ingress_ifindex }), false)
}

/// The fast path of plain IPv6; 0 when the packet is for the general one.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn plain_xdp(ctx: *mut xdp_md, point: u32) -> i32 {
    let Some(kernel) = Kernel::new() else { return 1 };
    let mut packet = Packet::unread(point as u8, 1);
    parse_plain6(&Linear::xdp(ctx), &mut packet, FastPath::<_, Slot6>::new(&kernel)) as i32
}

/// The general path parses again, into memory: that costs less than to hand the packet over, and the fast
/// path keeps it in registers.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn general_xdp(ctx: *mut xdp_md) -> i32 {
    let (Some(kernel), Some(packet)) = (Kernel::new(), packet::packet()) else { return 0 };
    frame::parse_xdp(ctx, packet);
    packet.point = xdp_point(&kernel, ctx);
    engine::count_note(&kernel, packet);
    0
}

/// A frame at TC, in the same three ways.
#[inline(always)]
pub(crate) fn skb(ctx: *mut __sk_buff, egress: bool) {
    let Some(kernel) = Kernel::new() else { return };
    let (point, segments) = point_and_segments(&kernel, ctx, egress);
    let mut is_read = false;
    if !is_raw(&kernel, point) && (segments != 0 || segment_size(ctx) == 0) {
        let mut packet = Packet::unread(point, segments.max(1));
        let fast = WithLink { sink: FastPath::<_, Slot4>::new(&kernel), says_ip: frame::ip_family(ctx) != 0 };
        if parse_plain4(&Linear::skb(ctx), &mut packet, fast) {
            return;
        }
        let is_ipv4 = packet.family == Family::V4 as u8;
        if !is_ipv4 && plain_skb(ctx, point as u32, segments.max(1) as u32) != 0 {
            return;
        }
        is_read = is_ipv4 && read_plain4(&Linear::skb(ctx), point, segments.max(1));
    }
    if !is_read {
        general_skb(ctx, egress as u32);
    }
    observe(&kernel, || verify_skb(ctx));
    explain();
}

/// A sink of frames at TC, whose link header may be missing ([`frame::parse_skb`]): where the kernel says IP,
/// "neither IP nor tagged" is for the general path.
struct WithLink<S> {
    sink: S,
    says_ip: bool,
}

impl<S: PacketSink> PacketSink for WithLink<S> {
    #[inline(always)]
    fn ack(self, packet: &mut Packet) -> bool {
        self.sink.ack(packet)
    }

    #[inline(always)]
    fn udp(self, packet: &mut Packet) -> bool {
        self.sink.udp(packet)
    }

    #[inline(always)]
    fn other(self, packet: &mut Packet, class: Class) -> bool {
        (class as u8 != Class::NonIp as u8 || !self.says_ip) && self.sink.other(packet, class)
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn plain_skb(ctx: *mut __sk_buff, point: u32, segments: u32) -> i32 {
    let Some(kernel) = Kernel::new() else { return 1 };
    // Without its link header an IPv4 frame may look like IPv6 behind one.
    if frame::ip_family(ctx) != Family::V6 as u8 {
        return 0;
    }
    let mut packet = Packet::unread(point as u8, segments as u16);
    parse_plain6(&Linear::skb(ctx), &mut packet, FastPath::<_, Slot6>::new(&kernel)) as i32
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn general_skb(ctx: *mut __sk_buff, egress: u32) -> i32 {
    let (Some(kernel), Some(packet)) = (Kernel::new(), packet::packet()) else { return 0 };
    let (point, segments) = point_and_segments(&kernel, ctx, egress != 0);
    frame::parse_skb(ctx, is_raw(&kernel, point), packet);
    (packet.point, packet.segments) = (point, segments.max(1));
    if segments == 0 {
        packet.divide(segment_size(ctx));
    }
    engine::count_note(&kernel, packet);
    0
}

/// Defines the verification of the packet's checksum as a global function: its stack is released before the
/// steps.
macro_rules! verify {
    ($name:ident, $ctx:ty) => {
        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $name(ctx: *mut $ctx) -> i32 {
            let Some(packet) = packet::packet() else { return 0 };
            let comes_in = packet.point & 1 == 0;
            if comes_in && packet.has_checksum() && ctx.has_wrong_checksum() {
                packet.note = note::BAD_CHECKSUM;
            }
            0
        }
    };
}

verify!(verify_xdp, xdp_md);
verify!(verify_skb, __sk_buff);

/// Bytes of data in a segment of a super-packet; 0 of any other packet.
#[inline(always)]
fn segment_size(ctx: *mut __sk_buff) -> u32 {
    // SAFETY: the context is the program's own.
    unsafe { (*ctx).gso_size }
}

/// What the context knows of a frame at TC: its hook point, and the segments of a super-packet. Of any other
/// packet these are 0, and of a super-packet that came in by a virtio header.
#[inline(always)]
fn point_and_segments(kernel: &Kernel, ctx: *mut __sk_buff, egress: bool) -> (u8, u16) {
    // SAFETY: the context is the program's own.
    let (interface, segments) = unsafe { ((*ctx).ifindex, (*ctx).gso_segs) };
    (point(kernel.interface(interface), egress), segments.min(u32::from(u16::MAX)) as u16)
}

/// Has the frame no link header, or not where `data` says?
#[inline(always)]
fn is_raw(kernel: &Kernel, point: u8) -> bool {
    kernel.config().raw_interfaces >> (point >> 1 & 0xf) & 1 != 0
}

/// Counts the packet that was read into memory, and tracks it when it is of a flow that is wanted. The steps
/// are called from the entry, one after the other: their stacks do not add up, and that of parsing is
/// released.
#[inline(always)]
fn observe(kernel: &Kernel, verify: impl FnOnce() -> i32) {
    let Some(packet) = packet::packet() else { return };
    if kernel.config().options & option::CHECKSUMS != 0 {
        verify();
    }
    if !engine::count(kernel, packet) {
        return;
    }
    let is_ipv4 = packet.family == Family::V4 as u8;
    if packet.note == note::BAD_CHECKSUM {
        let _ = if is_ipv4 { refute4(packet) } else { refute6(packet) };
        return;
    }
    let update =
        |_: &Kernel, packet: &Packet| result(if is_ipv4 { update4(packet) } else { update6(packet) });
    let answer = |_: &Kernel, packet: &Packet| {
        (if is_ipv4 { answer4(packet) } else { answer6(packet) }).cast_unsigned() as u16
    };
    let insert = |_: &Kernel, packet: &Packet, request: u16| {
        let request = u32::from(request);
        result(if is_ipv4 { insert4(packet, request) } else { insert6(packet, request) })
    };
    let settle = |_: &Kernel, packet: &Packet| {
        if is_ipv4 {
            settle4(packet);
        } else {
            settle6(packet);
        }
    };
    engine::run(kernel, packet, update, answer, insert, settle);
}

#[inline(always)]
const fn result(bits: i32) -> StepResult {
    StepResult(bits.cast_unsigned())
}

/// Defines a step of the engine as a global function, which answers with a number.
macro_rules! step {
    ($name:ident, $step:expr) => {
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub(crate) extern "C" fn $name(packet: *const Packet) -> i32 {
            let Some(kernel) = Kernel::new() else { return 1 };
            if packet.is_null() {
                return 1;
            }
            // SAFETY: not null, and the verifier holds callers to a whole `Packet`.
            $step(&kernel, unsafe { &*packet }).0.cast_signed()
        }
    };
}

step!(update4, engine::update::<_, Slot4>);
step!(update6, engine::update::<_, Slot6>);
step!(answer4, answer::<Slot4>);
step!(answer6, answer::<Slot6>);
step!(refute4, refute::<Slot4>);
step!(refute6, refute::<Slot6>);
step!(settle4, settle::<Slot4>);
step!(settle6, settle::<Slot6>);

/// The same of the step that takes what [`engine::answer`] says.
macro_rules! insert {
    ($name:ident, $slot:ty) => {
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub(crate) extern "C" fn $name(packet: *const Packet, request_port: u32) -> i32 {
            let Some(kernel) = Kernel::new() else { return 1 };
            if packet.is_null() {
                return 1;
            }
            // SAFETY: not null, and the verifier holds callers to a whole `Packet`.
            let packet = unsafe { &*packet };
            engine::insert::<_, $slot>(&kernel, packet, request_port as u16).0.cast_signed()
        }
    };
}

insert!(insert4, Slot4);
insert!(insert6, Slot6);

#[inline(always)]
fn answer<S: engine::Table>(kernel: &Kernel, packet: &Packet) -> StepResult {
    StepResult(u32::from(engine::answer::<_, S>(kernel, packet)))
}

#[inline(always)]
fn settle<S: engine::Table>(kernel: &Kernel, packet: &Packet) -> StepResult {
    engine::settle::<_, S>(kernel, packet);
    StepResult::DONE
}

#[inline(always)]
fn refute<S: engine::Table>(kernel: &Kernel, packet: &Packet) -> StepResult {
    engine::refute::<_, S>(kernel, packet);
    StepResult::DONE
}
