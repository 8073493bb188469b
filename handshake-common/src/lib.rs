//! The rules of handshake, compiled twice: into the BPF programs and into the agent.
//!
//! Laws of this crate: `no_std`, no allocation, no clock, no I/O. Everything is a function of its
//! arguments; the time comes in as one. Memory that several CPUs share is reached through
//! [`shared`] only, packets through [`wire::Frame`] only.
//!
//! ```text
//! packet ─▶ wire::parse ─▶ engine::track ─┬▶ table   find, insert, evict
//!                                         ├▶ tcp, udp  step(record, segment, now)
//!                                         └▶ books, services, latency
//! ```
#![no_std]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch, core_intrinsics))]
#![cfg_attr(
    target_arch = "bpf",
    expect(internal_features, reason = "BPF has its atomics as compiler intrinsics only")
)]

#[cfg(test)]
extern crate std;

/// The host's atomic operations, under one name: `tests/model` compiles the protocol with a model's instead.
#[cfg(not(target_arch = "bpf"))]
mod atomic {
    pub(crate) use core::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
}

/// How long one waits for another. Apart from the protocol, for `tests/model` has less of it.
mod spin {
    /// How often a CPU looks again at a word that another one holds. A holder needs some hundred nanoseconds; a
    /// look takes about two, with the pause that the kernel's have between them some 40.
    pub(crate) const LOOKS: u32 = 128;
    /// How often it waits so and then tries to have a slot: some 40 µs in all, for an interrupt may come to the
    /// holder's CPU, and where both ends of a connection are here, both work on its record at once.
    pub(crate) const TRIES: u32 = 8;
    /// How often a reader begins again with a slot. A transition holds it for well under a
    /// microsecond: whoever is unlucky this often in a row gives up.
    #[cfg(not(target_arch = "bpf"))]
    pub(crate) const READ_TRIES: u32 = 1_000;
}

pub mod abi;
pub mod books;
pub mod engine;
pub mod flow;
pub mod latency;
#[cfg(not(target_arch = "bpf"))]
pub mod memory;
pub mod record;
pub mod seq;
pub mod shared;
pub mod table;
pub mod tcp;
pub mod udp;
pub mod verdict;
pub mod wire;

/// `index & MASK` by an operation that the compiler cannot drop: where it knows that the index is within
/// `MASK`, the verifier may not. A constant both know.
#[inline(always)]
#[must_use]
pub fn masked<const MASK: usize>(index: usize) -> usize {
    #[cfg(target_arch = "bpf")]
    {
        if core::intrinsics::is_val_statically_known(index) {
            return index & MASK;
        }
        let mut index = index;
        // SAFETY: one operation on a register; what it leaves is at most the mask.
        unsafe {
            core::arch::asm!("{0} &= {1}", inout(reg) index, const MASK, options(pure, nomem, nostack));
            core::hint::assert_unchecked(index <= MASK);
        }
        index
    }
    #[cfg(not(target_arch = "bpf"))]
    {
        index & MASK
    }
}

/// 1 when `a < b`, else 0, without a branch: the sign of the difference, which must fit. By an operation that the
/// compiler does not see through: it would make a comparison of it, and a branch for each use.
#[inline(always)]
#[must_use]
pub fn below(a: i64, b: i64) -> u64 {
    let difference = a.wrapping_sub(b).cast_unsigned();
    #[cfg(target_arch = "bpf")]
    {
        let mut sign = difference;
        // SAFETY: one operation on a register; what it leaves is one bit.
        unsafe {
            core::arch::asm!("{0} >>= 63", inout(reg) sign, options(pure, nomem, nostack));
            core::hint::assert_unchecked(sign <= 1);
        }
        sign
    }
    #[cfg(not(target_arch = "bpf"))]
    {
        difference >> 63
    }
}

/// The lower half of a word.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "the lower half is what is asked for")]
const fn low_half(word: u64) -> u32 {
    word as u32
}
