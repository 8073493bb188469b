//! Walkers: each run gets another IPv4 address and tail-calls the program under test, so that one test run
//! visits a million flows. The time of a walker with the empty program is subtracted.

use aya_ebpf::bindings::{TC_ACT_UNSPEC, xdp_action};
use aya_ebpf::btf_maps::{Array, ProgramArray};
use aya_ebpf::helpers::bpf_get_prandom_u32;
use aya_ebpf::macros::btf_map;
use aya_ebpf::programs::{TcContext, XdpContext};

use crate::packet::LinearPacket;

/// The offsets of the IPv4 source and destination address in an Ethernet frame.
const SOURCE: usize = 26;
const DESTINATION: usize = 30;

/// The addresses to walk. Written by the bench before a run.
#[repr(C)]
pub(crate) struct Walk {
    /// The bits that all addresses share, in host order.
    base: u32,
    /// The bits in which they differ: a power of two, less one; all ones for fresh addresses.
    mask: u32,
    /// The number of the next address in order.
    next: u32,
    /// 1: the destination is walked, for packets of the other direction; 0: the source.
    reply: u32,
}

#[btf_map]
static WALK: Array<Walk, 1> = Array::new();
#[btf_map]
static TARGET_XDP: ProgramArray<1> = ProgramArray::new();
#[btf_map]
static TARGET_TC: ProgramArray<1> = ProgramArray::new();

/// Gives the frame the next address in order.
#[inline(always)]
pub(crate) fn in_order(frame: LinearPacket) {
    let Some(walk) = WALK.get_ptr_mut(0) else { return };
    // SAFETY: the element lives as long as the map, and the bench runs one walker at a time.
    let (walk, number) = unsafe {
        let number = (*walk).next;
        (*walk).next = number.wrapping_add(1);
        (&*walk, number)
    };
    rewrite(frame, walk, number);
}

/// Gives the frame a random address.
#[inline(always)]
pub(crate) fn at_random(frame: LinearPacket) {
    let Some(walk) = WALK.get(0) else { return };
    // SAFETY: the helper has no preconditions.
    rewrite(frame, walk, unsafe { bpf_get_prandom_u32() });
}

#[inline(always)]
fn rewrite(frame: LinearPacket, walk: &Walk, number: u32) {
    let address = walk.base | (number & walk.mask);
    let place = if walk.reply == 0 { SOURCE } else { DESTINATION };
    frame.write(place, address.to_be());
}

/// Tail-calls the program under test. Returns only if there is none; the bench detects that by the return
/// value.
#[inline(always)]
pub(crate) fn on_xdp(ctx: &XdpContext) -> u32 {
    // SAFETY: the context is the one that the kernel passed to this program.
    unsafe { TARGET_XDP.tail_call(ctx, 0) };
    xdp_action::XDP_ABORTED
}

/// Tail-calls the program under test at TC, as [`on_xdp`] does at XDP.
#[inline(always)]
pub(crate) fn on_tc(ctx: &TcContext) -> i32 {
    // SAFETY: the context is the one that the kernel passed to this program.
    unsafe { TARGET_TC.tail_call(ctx, 0) };
    // Any code but the one that every program under test returns.
    TC_ACT_UNSPEC - 1
}
