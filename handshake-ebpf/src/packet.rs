//! The packet of the general path: in a map, because the stack has no room for it.

use aya_ebpf::btf_maps::PerCpuArray;
use aya_ebpf::macros::btf_map;
use handshake_common::wire::Packet;

/// The packet of the general path. A CPU handles one at a time: softirqs are off at both hooks.
#[btf_map]
static PACKET: PerCpuArray<Packet, 1> = PerCpuArray::new();

/// This CPU's packet, as the one before left it.
#[inline(always)]
pub(crate) fn packet() -> Option<&'static mut Packet> {
    // SAFETY: one run of the general path at a time has it, and only for that run.
    PACKET.get_ptr_mut(0).map(|packet| unsafe { &mut *packet })
}
