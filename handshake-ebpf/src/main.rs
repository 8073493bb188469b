//! The kernel side of handshake: the thin shell around the rules of `handshake-common`.
//!
//! Every program passes every packet on, unchanged.
#![no_std]
#![no_main]
#![expect(
    clippy::cast_possible_truncation,
    reason = "helpers and contexts give wider words than their values: lengths, interface numbers, jiffies' low half"
)]
#![expect(unreachable_pub, missing_docs, reason = "the macros of aya make items around the programs")]

mod evidence;
mod frame;
mod handover;
mod log;
mod maker;
mod maps;
mod track;

use aya_ebpf::bindings::{TC_ACT_UNSPEC, xdp_action};
use aya_ebpf::macros::{cgroup_sock, classifier, xdp};
use aya_ebpf::programs::{SockContext, TcContext, XdpContext};

/// What a program on the making of sockets answers so that one is made.
const ALLOW: i32 = 1;

/// Ingress, before the kernel makes a socket buffer.
#[xdp(frags)]
pub fn handshake_xdp(ctx: XdpContext) -> u32 {
    track::xdp(&ctx);
    xdp_action::XDP_PASS
}

/// Ingress where there is no XDP. `TC_ACT_UNSPEC` is `TCX_NEXT`: the next program decides.
#[classifier]
pub fn handshake_ingress(ctx: TcContext) -> i32 {
    track::skb(&ctx, false);
    TC_ACT_UNSPEC
}

/// Egress.
#[classifier]
pub fn handshake_egress(ctx: TcContext) -> i32 {
    track::skb(&ctx, true);
    TC_ACT_UNSPEC
}

/// What the fast path at XDP leaves. Never attached: `handshake_xdp` calls it.
#[xdp(frags)]
pub fn handshake_xdp_rest(ctx: XdpContext) -> u32 {
    track::xdp_rest(ctx.ctx);
    xdp_action::XDP_PASS
}

/// The same at TC, in both directions.
#[classifier]
pub fn handshake_rest(ctx: TcContext) -> i32 {
    track::skb_rest(ctx.skb.skb);
    TC_ACT_UNSPEC
}

/// A process makes a socket: notes which. It never refuses one.
#[cgroup_sock(sock_create)]
pub fn handshake_socket(ctx: SockContext) -> i32 {
    maker::note(ctx.sock);
    ALLOW
}

/// Never attached: the agent runs it to read both clocks at one moment.
#[xdp]
pub fn handshake_clock(_ctx: XdpContext) -> u32 {
    maps::read_clocks();
    xdp_action::XDP_PASS
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
