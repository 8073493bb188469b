//! The way of a packet through the kernel side: parse → count → track.
//!
//! Parsing and tracking are global functions: the verifier checks each once, for any arguments.

use aya_ebpf::bindings::{__sk_buff, xdp_md};
use aya_ebpf::programs::{TcContext, XdpContext};
use handshake_common::abi::point;
use handshake_common::engine::{self, Next};
use handshake_common::flow::Family;
use handshake_common::table::{Slot4, Slot6};
use handshake_common::wire::Packet;

use crate::maps::Kernel;
use crate::{frame, log};

/// A frame at XDP.
#[inline(always)]
pub(crate) fn xdp(ctx: *mut xdp_md) {
    let Some(kernel) = Kernel::new() else { return };
    // SAFETY: the context is the program's own.
    let interface = unsafe { (*ctx).ingress_ifindex };
    let mut packet = Packet::default();
    frame::parse_xdp(ctx, &mut packet);
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
    let raw = engine::Platform::config(&kernel).raw_interfaces >> number & 1 != 0;
    let mut packet = Packet::default();
    frame::parse_skb(ctx, raw, &mut packet);
    packet.point = point(number, egress);
    packet.segments = segments.clamp(1, u32::from(u16::MAX)) as u16;
    log::packet(&TcContext::new(ctx), &packet);
    observe(&kernel, &packet);
}

/// Counts a packet, and tracks it when it is of a flow that is wanted. The three functions are called
/// from here, one after the other: their stacks do not add up.
#[inline(always)]
fn observe(kernel: &Kernel, packet: &Packet) {
    if !engine::count(kernel, packet) {
        return;
    }
    if packet.family == Family::V4 as u8 {
        run(packet, find4, insert4, meet4);
    } else {
        run(packet, find6, insert6, meet6);
    }
}

type Search = extern "C" fn(*const Packet) -> i64;
type Meeting = extern "C" fn(*const Packet, u32) -> i32;

#[inline(always)]
fn run(packet: &Packet, find: Search, insert: Search, meet: Meeting) {
    let mut next = find(packet);
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
step!(service_row(packet) -> i32, 0, |kernel, packet| engine::service_row(kernel, packet) as i32);
