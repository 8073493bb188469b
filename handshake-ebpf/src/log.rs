//! Rare diagnostics through aya-log: off by default, and then removed by the verifier.

use aya_ebpf::EbpfContext;
use aya_log_ebpf::debug;
use handshake_common::wire::{Packet, note};

/// Says what a packet's headers have that is worth a line.
#[inline(always)]
pub(crate) fn packet<C: EbpfContext>(ctx: &C, packet: &Packet) {
    if packet.note == note::EXTENSION_CHAIN {
        debug!(ctx, "IPv6 packet with a chain of extension headers too long to walk: counted as ip_other");
    }
}
