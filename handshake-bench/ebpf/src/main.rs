//! The programs of `cargo xtask bench`: an empty one a hook, the usual way to track flows, and walkers that
//! give each run another source address. None of it is in the product.
#![no_std]
#![no_main]

mod packet;
mod reference;
mod walk;

use aya_ebpf::bindings::{TC_ACT_UNSPEC, xdp_action};
use aya_ebpf::macros::{classifier, xdp};
use aya_ebpf::programs::{TcContext, XdpContext};

use packet::Linear;

/// What the XDP hook itself costs. With frags, as ours: a program array takes no mixture.
#[xdp(frags)]
fn empty_xdp(_ctx: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}

/// What the TC hook itself costs.
#[classifier]
fn empty_tc(_ctx: TcContext) -> i32 {
    TC_ACT_UNSPEC
}

/// The usual way, at XDP.
#[xdp(frags)]
fn reference_xdp(ctx: XdpContext) -> u32 {
    reference::track(Linear { start: ctx.data(), end: ctx.data_end() });
    xdp_action::XDP_PASS
}

/// The usual way, at TC.
#[classifier]
fn reference_tc(ctx: TcContext) -> i32 {
    reference::track(Linear { start: ctx.data(), end: ctx.data_end() });
    TC_ACT_UNSPEC
}

/// Every flow in its turn, at XDP.
#[xdp(frags)]
fn in_order_xdp(ctx: XdpContext) -> u32 {
    walk::in_order(Linear { start: ctx.data(), end: ctx.data_end() });
    walk::on_xdp(&ctx)
}

/// Any flow, at XDP.
#[xdp(frags)]
fn at_random_xdp(ctx: XdpContext) -> u32 {
    walk::at_random(Linear { start: ctx.data(), end: ctx.data_end() });
    walk::on_xdp(&ctx)
}

/// Every flow in its turn, at TC.
#[classifier]
fn in_order_tc(ctx: TcContext) -> i32 {
    walk::in_order(Linear { start: ctx.data(), end: ctx.data_end() });
    walk::on_tc(&ctx)
}

/// Any flow, at TC.
#[classifier]
fn at_random_tc(ctx: TcContext) -> i32 {
    walk::at_random(Linear { start: ctx.data(), end: ctx.data_end() });
    walk::on_tc(&ctx)
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
