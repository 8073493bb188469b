//! From the program at a hook to the one that does what the fast path leaves: by a tail call, so that the
//! second has a whole stack, and is verified once for both directions.

use aya_ebpf::btf_maps::ProgramArray;
use aya_ebpf::macros::btf_map;
use aya_ebpf::programs::{TcContext, XdpContext};
use handshake_common::abi::MAKER_WORDS;
use handshake_common::interface::Interface;
use handshake_common::wire::{Packet, mark};

/// The program that follows at TC, and at XDP. The agent fills them before it attaches.
#[btf_map]
static NEXT_TC: ProgramArray<1> = ProgramArray::new();
#[btf_map]
static NEXT_XDP: ProgramArray<1> = ProgramArray::new();

/// A packet that the fast path left, and what the program at the hook knows of it. In a map, because the stack
/// has no room for it. A CPU handles one at a time: softirqs are off at both hooks.
#[repr(C)]
pub(crate) struct Current {
    /// The packet, once it is read.
    pub(crate) packet: Packet,
    /// Where it was seen.
    pub(crate) interface: Interface,
    /// Segments of a super-packet. 0: of any other packet, and of a super-packet that came in by a virtio
    /// header.
    pub(crate) segments: u16,
    /// Not 0: it is one of an open attempt, and has not completed it.
    pub(crate) met_open: u16,
    /// The control group of the socket that sent it; 0: not known, or not asked.
    pub(crate) group: u64,
    /// The words of the maker of that socket; the first is 0 likewise.
    pub(crate) maker: [u64; MAKER_WORDS],
    /// The precise clock as it was read last, ns.
    pub(crate) now_ns: u64,
    /// The slot of this CPU that the latest kept packet is in.
    pub(crate) kept: u64,
    /// The tag of the attempt that a third segment over IPv6 completes, and the number of its slot.
    pub(crate) found: (u64, u32),
}

/// What the fast path of IPv6 leaves of a packet, as a number: it is a function of its own.
pub(crate) mod left {
    /// All of it, for the general path.
    pub(crate) const ALL: u32 = 0;
    /// Nothing.
    pub(crate) const NOTHING: u32 = 1;
    /// A SYN for the straight way, which the program at the hook has the stack for.
    pub(crate) const SYN: u32 = 2;
    /// A SYN+ACK for it.
    pub(crate) const SYN_ACK: u32 = 3;
    /// A third segment for it: [`Current::found`](super::Current::found) says of what.
    pub(crate) const ACK: u32 = 4;
}

impl Current {
    /// Notes what is known of a packet that the fast path leaves.
    #[inline(always)]
    pub(crate) fn give(&mut self, interface: Interface, segments: u16) {
        (self.interface, self.segments, self.met_open) = (interface, segments, 0);
        // Word by word: of two that lie side by side the compiler makes a call that clears byte by byte.
        // SAFETY: they are this one's own.
        unsafe {
            (&raw mut self.group).write_volatile(0);
            (&raw mut self.maker[0]).write_volatile(0);
        }
    }

    /// Gives the packet what is known of it.
    #[inline(always)]
    pub(crate) fn place(&mut self) {
        (self.packet.point, self.packet.segments) = (self.interface.point(), self.segments.max(1));
        if !self.interface.is_open() {
            self.packet.marks |= mark::GATED;
        }
    }
}

/// Does not return.
#[inline(always)]
pub(crate) fn to_tc(ctx: &TcContext) {
    // SAFETY: nothing of the caller's has to be dropped.
    unsafe { NEXT_TC.tail_call(ctx, 0) };
}

/// Does not return.
#[inline(always)]
pub(crate) fn to_xdp(ctx: &XdpContext) {
    // SAFETY: nothing of the caller's has to be dropped.
    unsafe { NEXT_XDP.tail_call(ctx, 0) };
}
