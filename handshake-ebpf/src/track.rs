//! The way of a packet through the kernel side: parse → count → track.
//!
//! Parsing and tracking are global functions: the verifier checks each once, for any arguments.

use aya_ebpf::bindings::{__sk_buff, xdp_md};
use handshake_common::abi::point;
use handshake_common::engine::{self, FastPath};
use handshake_common::flow::Family;
use handshake_common::table::{Slot4, Slot6};
use handshake_common::wire::{Packet, ParseOnly, parse_plain4, parse_plain6};

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
    let done = if packet.family == Family::V4 as u8 {
        track_plain4(&kernel, &Linear::xdp(ctx), point, 1)
    } else {
        plain_xdp(ctx, point as u32) != 0
    };
    if !done {
        general_xdp(ctx, point as u32);
    }
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
fn track_plain4<C: Context>(kernel: &Kernel, frame: &Linear<C>, point: u8, segments: u16) -> bool {
    let Some(packet) = packet::packet() else { return true };
    frame::clear(packet);
    (packet.point, packet.segments) = (point, segments);
    let plain = parse_plain4(frame, packet, ParseOnly);
    if plain {
        observe4(kernel, packet);
    }
    plain
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

/// The general path parses again: that costs less than to hand the packet over, and the fast path
/// keeps it in registers. Its own packet lies in a map: the stack is for the steps.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn general_xdp(ctx: *mut xdp_md, point: u32) -> i32 {
    let (Some(kernel), Some(packet)) = (Kernel::new(), packet::packet()) else { return 0 };
    frame::parse_xdp(ctx, packet);
    packet.point = point as u8;
    engine::count_note(&kernel, packet);
    observe(&kernel, packet);
    0
}

/// A frame at TC, in the same three ways.
#[inline(always)]
pub(crate) fn skb(ctx: *mut __sk_buff, egress: bool) {
    let Some(kernel) = Kernel::new() else { return };
    let (point, segments) = point_and_segments(&kernel, ctx, egress);
    if is_raw(&kernel, point) {
        general_skb(ctx, point as u32, segments as u32);
        explain();
        return;
    }
    let mut packet = Packet::unread(point, segments);
    if parse_plain4(&Linear::skb(ctx), &mut packet, FastPath::<_, Slot4>::new(&kernel)) {
        return;
    }
    let done = if packet.family == Family::V4 as u8 {
        track_plain4(&kernel, &Linear::skb(ctx), point, segments)
    } else {
        plain_skb(ctx, point as u32, segments as u32) != 0
    };
    if !done {
        general_skb(ctx, point as u32, segments as u32);
    }
    explain();
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn plain_skb(ctx: *mut __sk_buff, point: u32, segments: u32) -> i32 {
    let Some(kernel) = Kernel::new() else { return 1 };
    let mut packet = Packet::unread(point as u8, segments as u16);
    parse_plain6(&Linear::skb(ctx), &mut packet, FastPath::<_, Slot6>::new(&kernel)) as i32
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn general_skb(ctx: *mut __sk_buff, point: u32, segments: u32) -> i32 {
    let (Some(kernel), Some(packet)) = (Kernel::new(), packet::packet()) else { return 0 };
    frame::parse_skb(ctx, is_raw(&kernel, point as u8), packet);
    (packet.point, packet.segments) = (point as u8, segments as u16);
    engine::count_note(&kernel, packet);
    observe(&kernel, packet);
    0
}

/// What the context knows of a frame at TC: its hook point, and the segments of a super-packet.
#[inline(always)]
fn point_and_segments(kernel: &Kernel, ctx: *mut __sk_buff, egress: bool) -> (u8, u16) {
    // SAFETY: the context is the program's own.
    let (interface, segments) = unsafe { ((*ctx).ifindex, (*ctx).gso_segs) };
    (point(kernel.interface(interface), egress), segments.clamp(1, u32::from(u16::MAX)) as u16)
}

/// Has the frame no link header, or not where `data` says?
#[inline(always)]
fn is_raw(kernel: &Kernel, point: u8) -> bool {
    engine::Platform::config(kernel).raw_interfaces >> (point >> 1 & 0xf) & 1 != 0
}

/// Counts a packet, and tracks it when it is of a flow that is wanted. The two functions are called
/// from here, one after the other: their stacks do not add up.
#[inline(always)]
fn observe(kernel: &Kernel, packet: &Packet) {
    if packet.family == Family::V4 as u8 {
        observe4(kernel, packet);
    } else if engine::count(kernel, packet) {
        engine::run(kernel, packet, |_, packet| update6(packet) != 0, |_, packet| insert6(packet) != 0);
    }
}

#[inline(always)]
fn observe4(kernel: &Kernel, packet: &Packet) {
    if engine::count(kernel, packet) {
        engine::run(kernel, packet, |_, packet| update4(packet) != 0, |_, packet| insert4(packet) != 0);
    }
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
            $step(&kernel, unsafe { &*packet }) as i32
        }
    };
}

step!(update4, engine::update::<_, Slot4>);
step!(update6, engine::update::<_, Slot6>);
step!(insert4, engine::insert::<_, Slot4>);
step!(insert6, engine::insert::<_, Slot6>);
