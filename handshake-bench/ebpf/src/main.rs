//! The programs of `cargo xtask bench`: an empty one per hook, the usual way to track flows, and walkers that
//! give each run another IPv4 address. None of them is in the product.
#![no_std]
#![no_main]

mod packet;
mod reference;
mod walk;

use aya_ebpf::bindings::{TC_ACT_UNSPEC, xdp_action};
use aya_ebpf::macros::{classifier, xdp};
use aya_ebpf::programs::{TcContext, XdpContext};

use packet::LinearPacket;

/// Measures the cost of the XDP hook itself. With frags, as handshake's: a program array takes no mixture.
#[xdp(frags)]
fn empty_xdp(_ctx: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}

/// Measures the cost of the TC hook itself.
#[classifier]
fn empty_tc(_ctx: TcContext) -> i32 {
    TC_ACT_UNSPEC
}

/// Tracks flows the usual way, at XDP.
#[xdp(frags)]
fn reference_xdp(ctx: XdpContext) -> u32 {
    reference::track(LinearPacket { start: ctx.data(), end: ctx.data_end() });
    xdp_action::XDP_PASS
}

/// Tracks flows the usual way, at TC.
#[classifier]
fn reference_tc(ctx: TcContext) -> i32 {
    reference::track(LinearPacket { start: ctx.data(), end: ctx.data_end() });
    TC_ACT_UNSPEC
}

/// Walks the flows in order, at XDP.
#[xdp(frags)]
fn in_order_xdp(ctx: XdpContext) -> u32 {
    walk::in_order(LinearPacket { start: ctx.data(), end: ctx.data_end() });
    walk::on_xdp(&ctx)
}

/// Walks the flows at random, at XDP.
#[xdp(frags)]
fn at_random_xdp(ctx: XdpContext) -> u32 {
    walk::at_random(LinearPacket { start: ctx.data(), end: ctx.data_end() });
    walk::on_xdp(&ctx)
}

/// Walks the flows in order, at TC.
#[classifier]
fn in_order_tc(ctx: TcContext) -> i32 {
    walk::in_order(LinearPacket { start: ctx.data(), end: ctx.data_end() });
    walk::on_tc(&ctx)
}

/// Walks the flows at random, at TC.
#[classifier]
fn at_random_tc(ctx: TcContext) -> i32 {
    walk::at_random(LinearPacket { start: ctx.data(), end: ctx.data_end() });
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
