//! Keeps the segments of open attempts, for `--evidence`: when one is known to have failed, its packets are there.
//!
//! One array of slots, of which each CPU has a part of its own and writes it round and round: a ring buffer of the
//! kernel refuses what does not fit. The time in a slot is 0 while it is written, by which a reader that has the array
//! in its memory knows a whole copy. Nothing waits for a reader, and none is told.

use aya_ebpf::Global;
use aya_ebpf::bindings::BPF_F_MMAPABLE;
use aya_ebpf::btf_maps::Array;
use aya_ebpf::helpers::bpf_get_smp_processor_id;
use aya_ebpf::macros::btf_map;
use handshake_common::abi::{EVIDENCE_BYTES, KeptPacket};
use handshake_common::interface::Interface;
use handshake_common::masked;
use handshake_common::shared::Shared64;

use crate::frame::Context;
use crate::handover::Current;

/// The slots: so many for each CPU as [`HANDSHAKE_EVIDENCE`] says.
#[btf_map]
static EVIDENCE: Array<KeptPacket, 1, { BPF_F_MMAPABLE as usize }> = Array::new();

/// The slots that each CPU has; 0: no packet is kept. The agent says so before it loads, and the verifier leaves
/// out what is not asked for.
#[unsafe(no_mangle)]
static HANDSHAKE_EVIDENCE: Global<u64> = Global::new(0);

/// Are packets kept?
#[inline(always)]
pub(crate) fn is_kept() -> bool {
    HANDSHAKE_EVIDENCE.load() != 0
}

/// Is the packet kept that has been tracked?
#[inline(always)]
pub(crate) fn wants(current: &Current) -> bool {
    current.met_open != 0 && is_kept()
}

/// Keeps the packet in the next slot of this CPU. A `raw` one begins with its IP header.
#[inline(always)]
pub(crate) fn keep<C: Context>(ctx: C, current: &mut Current, interface: Interface, raw: bool) {
    let (each, length) = (HANDSHAKE_EVIDENCE.load(), ctx.frame_length());
    // SAFETY: the helper has no preconditions.
    let cpu = u64::from(unsafe { bpf_get_smp_processor_id() } as u32);
    let place = if current.kept + 1 < each { current.kept + 1 } else { 0 };
    current.kept = place;
    let Some(slot) = EVIDENCE.get_ptr_mut((cpu * each + place) as u32) else { return };
    // At least 1 and at most all of the slot, as the verifier sees it.
    let most = EVIDENCE_BYTES as u32 - 1;
    let size = masked::<{ EVIDENCE_BYTES - 1 }>(length.wrapping_sub(1).min(most) as usize) + 1;
    // SAFETY: no other CPU writes this part, and a reader looks at the time before and after, which is reached as a
    // shared word only. The slot has room for the bytes.
    unsafe {
        let time = &*(&raw const (*slot).ns).cast::<Shared64>();
        time.store_in_order(0);
        (*slot).length = length;
        (*slot).interface = interface.0;
        if ctx.load((&raw mut (*slot).bytes).cast(), size as u32, raw) == 0 {
            time.store_in_order(current.now_ns);
        }
    }
}
