//! The way of a packet through the kernel side: parse → count → track.
//!
//! Parsing and tracking are global functions: the verifier checks each once, for any arguments,
//! instead of once a path that leads to it.

use aya_ebpf::bindings::{__sk_buff, xdp_md};
use aya_ebpf::programs::{TcContext, XdpContext};
use handshake_common::abi::point;
use handshake_common::engine;
use handshake_common::flow::Family;
use handshake_common::table::{Slot4, Slot6};
use handshake_common::wire::{self, Link, Packet};

use crate::frame::{SkbFrame, XdpFrame};
use crate::log;
use crate::maps::Kernel;

/// A frame at XDP.
#[inline(always)]
pub(crate) fn xdp(ctx: *mut xdp_md) {
    let Some(kernel) = Kernel::new() else { return };
    // SAFETY: the context is the program's own.
    let interface = unsafe { (*ctx).ingress_ifindex };
    let mut packet = Packet::default();
    parse_xdp(ctx, &raw mut packet);
    packet.point = point(kernel.interface(interface), false);
    log::packet(&XdpContext::new(ctx), &packet);
    observe(&kernel, &packet);
}

/// A frame at TC. The segments of a super-packet are counted here, where the kernel tells them.
#[inline(always)]
pub(crate) fn skb(ctx: *mut __sk_buff, egress: bool) {
    let Some(kernel) = Kernel::new() else { return };
    // SAFETY: the context is the program's own.
    let (interface, segments) = unsafe { ((*ctx).ifindex, (*ctx).gso_segs) };
    let number = kernel.interface(interface);
    let raw = engine::Platform::config(&kernel).raw_interfaces >> number & 1;
    let mut packet = Packet::default();
    parse_skb(ctx, &raw mut packet, raw);
    packet.point = point(number, egress);
    packet.segments = segments.clamp(1, u32::from(u16::MAX)) as u16;
    log::packet(&TcContext::new(ctx), &packet);
    observe(&kernel, &packet);
}

/// Counts a packet, and tracks it when it is of a flow that is wanted.
#[inline(always)]
fn observe(kernel: &Kernel, packet: &Packet) {
    if !engine::count(kernel, packet) {
        return;
    }
    if packet.family == Family::V4 as u8 {
        track4(packet);
    } else {
        track6(packet);
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn parse_xdp(ctx: *mut xdp_md, packet: *mut Packet) -> i32 {
    if packet.is_null() {
        return 0;
    }
    // SAFETY: not null, and the verifier holds callers to a whole `Packet`.
    wire::parse_into(&XdpFrame::new(ctx), Link::Ethernet, unsafe { &mut *packet });
    0
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn parse_skb(ctx: *mut __sk_buff, packet: *mut Packet, raw: u32) -> i32 {
    if packet.is_null() {
        return 0;
    }
    let link = if raw != 0 { Link::Ip } else { Link::Ethernet };
    // SAFETY: as in `parse_xdp`.
    wire::parse_into(&SkbFrame::new(ctx, raw != 0), link, unsafe { &mut *packet });
    0
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn track4(packet: *const Packet) -> i32 {
    if let Some(kernel) = Kernel::new()
        && !packet.is_null()
    {
        // SAFETY: as in `parse_xdp`.
        engine::track::<_, Slot4>(&kernel, unsafe { &*packet });
    }
    0
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn track6(packet: *const Packet) -> i32 {
    if let Some(kernel) = Kernel::new()
        && !packet.is_null()
    {
        // SAFETY: as in `parse_xdp`.
        engine::track::<_, Slot6>(&kernel, unsafe { &*packet });
    }
    0
}
