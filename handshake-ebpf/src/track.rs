//! The way of a packet through the kernel side: parse → count → track.
//!
//! Parsing and tracking are global functions: the verifier checks each once, for any arguments.

use aya_ebpf::bindings::{__sk_buff, xdp_md};
use handshake_common::abi::point;
use handshake_common::engine::{self, Next, Passage};
use handshake_common::flow::Family;
use handshake_common::table::{Slot4, Slot6};
use handshake_common::wire::{Packet, note, parse_plain4, parse_plain6};

use crate::frame::Linear;
use crate::maps::Kernel;
use crate::{frame, log, maps};

/// A frame at XDP. Plain IPv4 of a known flow is done here, other plain frames one call further, and
/// the rest by the general path: each has its own stack, and they do not add up.
#[inline(always)]
pub(crate) fn xdp(ctx: *mut xdp_md) {
    let Some(kernel) = Kernel::new() else { return };
    let mut packet = Packet::unread(xdp_point(&kernel, ctx), 1);
    let passed = parse_plain4(&Linear::xdp(ctx), &mut packet, Passage::<_, Slot4>::new(&kernel));
    if !passed && (packet.family == Family::V4 as u8 || plain_xdp(ctx) == 0) {
        general_xdp(ctx);
    }
}

#[inline(always)]
fn xdp_point(kernel: &Kernel, ctx: *mut xdp_md) -> u8 {
    // SAFETY: the context is the program's own.
    point(kernel.interface(unsafe { (*ctx).ingress_ifindex }), false)
}

/// The fast path of what is not IPv4; 0 when the packet is for the general one.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn plain_xdp(ctx: *mut xdp_md) -> i32 {
    let Some(kernel) = Kernel::new() else { return 1 };
    let mut packet = Packet::unread(xdp_point(&kernel, ctx), 1);
    parse_plain6(&Linear::xdp(ctx), &mut packet, Passage::<_, Slot6>::new(&kernel)) as i32
}

/// The general path parses again: that costs less than to hand the packet over, and the fast path
/// keeps it in registers. Its own packet lies in a map: the stack is for the steps.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn general_xdp(ctx: *mut xdp_md) -> i32 {
    let (Some(kernel), Some(packet)) = (Kernel::new(), maps::packet()) else { return 0 };
    frame::parse_xdp(ctx, packet);
    packet.point = xdp_point(&kernel, ctx);
    if packet.note != note::NONE {
        log::xdp(ctx);
    }
    observe(&kernel, packet);
    0
}

/// A frame at TC, in the same three ways.
#[inline(always)]
pub(crate) fn skb(ctx: *mut __sk_buff, egress: bool) {
    let Some(kernel) = Kernel::new() else { return };
    let mut packet = unread_skb(&kernel, ctx, egress);
    if is_raw(&kernel, &packet) {
        general_skb(ctx, egress as u32);
        return;
    }
    let passed = parse_plain4(&Linear::skb(ctx), &mut packet, Passage::<_, Slot4>::new(&kernel));
    if !passed && (packet.family == Family::V4 as u8 || plain_skb(ctx, egress as u32) == 0) {
        general_skb(ctx, egress as u32);
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn plain_skb(ctx: *mut __sk_buff, egress: u32) -> i32 {
    let Some(kernel) = Kernel::new() else { return 1 };
    let mut packet = unread_skb(&kernel, ctx, egress != 0);
    parse_plain6(&Linear::skb(ctx), &mut packet, Passage::<_, Slot6>::new(&kernel)) as i32
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn general_skb(ctx: *mut __sk_buff, egress: u32) -> i32 {
    let (Some(kernel), Some(packet)) = (Kernel::new(), maps::packet()) else { return 0 };
    let unread = unread_skb(&kernel, ctx, egress != 0);
    frame::parse_skb(ctx, is_raw(&kernel, &unread), packet);
    (packet.point, packet.segments) = (unread.point, unread.segments);
    if packet.note != note::NONE {
        log::skb(ctx);
    }
    observe(&kernel, packet);
    0
}

/// What the context knows of a frame at TC. The segments of a super-packet are counted here, where the
/// kernel tells them.
#[inline(always)]
fn unread_skb(kernel: &Kernel, ctx: *mut __sk_buff, egress: bool) -> Packet {
    // SAFETY: the context is the program's own.
    let (interface, segments) = unsafe { ((*ctx).ifindex, (*ctx).gso_segs) };
    Packet::unread(point(kernel.interface(interface), egress), segments.clamp(1, u32::from(u16::MAX)) as u16)
}

/// Has the frame no link header, or not where `data` says?
#[inline(always)]
fn is_raw(kernel: &Kernel, packet: &Packet) -> bool {
    engine::Platform::config(kernel).raw_interfaces >> (packet.point >> 1) & 1 != 0
}

/// Counts a packet, and tracks it when it is of a flow that is wanted. The three functions are called
/// from here, one after the other: their stacks do not add up.
#[inline(always)]
fn observe(kernel: &Kernel, packet: &Packet) {
    if packet.family == Family::V4 as u8 {
        observe4(kernel, packet);
    } else if engine::count(kernel, packet) {
        run(packet, find6, insert6, meet6);
    }
}

#[inline(always)]
fn observe4(kernel: &Kernel, packet: &Packet) {
    if engine::count(kernel, packet) {
        run(packet, find4, insert4, meet4);
    }
}

type Search = extern "C" fn(*const Packet) -> i64;
type Meeting = extern "C" fn(*const Packet, u32) -> i32;

#[inline(always)]
fn run(packet: &Packet, find: Search, insert: Search, meet: Meeting) {
    let mut next = if engine::is_syn(packet) { INSERT } else { find(packet) };
    if next == INSERT {
        next = insert(packet);
    }
    if next >= 0 {
        meet(packet, next as u32);
    }
}

/// [`Next`] as a number: global functions return no more. A slot's index is 0 or more.
const DONE: i64 = -1;
const INSERT: i64 = -2;

#[inline(always)]
fn number(next: Next) -> i64 {
    match next {
        Next::Done => DONE,
        Next::Insert => INSERT,
        Next::Meet(index) => i64::from(index),
    }
}

/// Defines a step of the engine as a global function.
macro_rules! step {
    ($name:ident ( packet $(, $argument:ident : $type:ty)? ) -> $result:ty, $none:expr, $body:expr) => {
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub(crate) extern "C" fn $name(packet: *const Packet $(, $argument: $type)?) -> $result {
            let Some(kernel) = Kernel::new() else { return $none };
            if packet.is_null() {
                return $none;
            }
            // SAFETY: not null, and the verifier holds callers to a whole `Packet`.
            $body(&kernel, unsafe { &*packet } $(, $argument)?)
        }
    };
}

step!(find4(packet) -> i64, DONE, |kernel, packet| number(engine::find::<_, Slot4>(kernel, packet)));
step!(find6(packet) -> i64, DONE, |kernel, packet| number(engine::find::<_, Slot6>(kernel, packet)));
step!(insert4(packet) -> i64, DONE, |kernel, packet| number(engine::insert::<_, Slot4>(kernel, packet)));
step!(insert6(packet) -> i64, DONE, |kernel, packet| number(engine::insert::<_, Slot6>(kernel, packet)));
step!(meet4(packet, index: u32) -> i32, 0, |kernel, packet, index| {
    engine::meet::<_, Slot4>(kernel, packet, index);
    0
});
step!(meet6(packet, index: u32) -> i32, 0, |kernel, packet, index| {
    engine::meet::<_, Slot6>(kernel, packet, index);
    0
});
