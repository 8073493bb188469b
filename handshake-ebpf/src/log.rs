//! Rare diagnostics through aya-log: off by default, and then removed by the verifier.

use aya_ebpf::bindings::{__sk_buff, xdp_md};
use aya_ebpf::programs::{TcContext, XdpContext};
use aya_log_ebpf::debug;

/// Says what an IPv6 packet at XDP has that is worth a line. A function of its own: lines need stack.
#[inline(never)]
pub(crate) fn xdp(ctx: *mut xdp_md) {
    debug!(
        &XdpContext::new(ctx),
        "IPv6 packet with a chain of extension headers too long to walk: counted as ip_other"
    );
}

/// The same at TC.
#[inline(never)]
pub(crate) fn skb(ctx: *mut __sk_buff) {
    debug!(
        &TcContext::new(ctx),
        "IPv6 packet with a chain of extension headers too long to walk: counted as ip_other"
    );
}
