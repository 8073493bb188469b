//! Walkers: each run gets another IPv4 address and goes on to the program under test, so that one test run
//! visits a million flows. A walker that goes on to the empty program is what has to be taken off.

use aya_ebpf::bindings::{TC_ACT_UNSPEC, xdp_action};
use aya_ebpf::btf_maps::{Array, ProgramArray};
use aya_ebpf::helpers::bpf_get_prandom_u32;
use aya_ebpf::macros::btf_map;
use aya_ebpf::programs::{TcContext, XdpContext};

use crate::packet::Linear;

/// Where an Ethernet frame has the source of its IPv4 header, and the destination.
const SOURCE: usize = 26;
const DESTINATION: usize = 30;

/// Which addresses are walked. Written by the bench before a run.
#[repr(C)]
pub(crate) struct Walk {
    /// The bits that all of them share, in host order.
    base: u32,
    /// The bits in which they differ: a power of two, less one; all ones for fresh addresses.
    mask: u32,
    /// The next one in turn.
    next: u32,
    /// 1: what is walked is the destination, for packets of the other direction.
    reply: u32,
}

#[btf_map]
static WALK: Array<Walk, 1> = Array::new();
#[btf_map]
static TARGET_XDP: ProgramArray<1> = ProgramArray::new();
#[btf_map]
static TARGET_TC: ProgramArray<1> = ProgramArray::new();

/// The next address.
#[inline(always)]
pub(crate) fn in_order(frame: Linear) {
    let Some(walk) = WALK.get_ptr_mut(0) else { return };
    // SAFETY: the element lives as long as the map, and the bench runs one walker at a time.
    let (walk, number) = unsafe {
        let number = (*walk).next;
        (*walk).next = number.wrapping_add(1);
        (&*walk, number)
    };
    rewrite(frame, walk, number);
}

/// Any address.
#[inline(always)]
pub(crate) fn at_random(frame: Linear) {
    let Some(walk) = WALK.get(0) else { return };
    // SAFETY: the helper has no preconditions.
    rewrite(frame, walk, unsafe { bpf_get_prandom_u32() });
}

#[inline(always)]
fn rewrite(frame: Linear, walk: &Walk, number: u32) {
    let address = walk.base | (number & walk.mask);
    let place = if walk.reply == 0 { SOURCE } else { DESTINATION };
    frame.write(place, address.to_be());
}

/// On to the program under test; comes back only where there is none, which the bench sees by its verdict.
#[inline(always)]
pub(crate) fn on_xdp(ctx: &XdpContext) -> u32 {
    // SAFETY: the context is the program's own.
    unsafe { TARGET_XDP.tail_call(ctx, 0) };
    xdp_action::XDP_ABORTED
}

/// The same at TC.
#[inline(always)]
pub(crate) fn on_tc(ctx: &TcContext) -> i32 {
    // SAFETY: the context is the program's own.
    unsafe { TARGET_TC.tail_call(ctx, 0) };
    // Any code but the one that every program under test ends with.
    TC_ACT_UNSPEC - 1
}
