//! The rules of handshake, compiled twice: into the BPF programs and into the agent.
//!
//! Laws of this crate: `no_std`, no clock, no I/O, and no allocation but for `host`, which BPF does not have.
//! Everything is a function of its arguments; the time is one of them. Memory that several CPUs share is
//! reached through [`shared`] only, packets through [`wire::Frame`] only.
//!
//! ```text
//! frame ─▶ wire::parse ─▶ engine::observe ─┬▶ engine::update ─▶ tcp::step, udp::step
//!                                          └▶ engine::insert ─▶ table: slots, worth, keys
//!
//! host      the memory of the engine, allocated; for the host only
//! memory    the engine over slices of the host
//! engine    from packet to record
//! table     slots and tags        tcp, udp  transitions
//! record    age, gauge, verdict   books     counters, service rows   latency  buckets
//! interface the table of interfaces
//! abi       what the kernel and the agent share, with its layout
//! wire      parsing
//! flow      addresses, keys, sides   shared  atomic words
//! verdict   the table of verdicts, causes, signs   seq  sequence numbers
//! counter   the words of the counter block
//! ```
//!
//! Modules use only those of lower lines.
#![no_std]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch, core_intrinsics))]
#![cfg_attr(
    target_arch = "bpf",
    expect(internal_features, reason = "BPF has its atomics as compiler intrinsics only")
)]

#[cfg(any(test, feature = "host"))]
extern crate alloc;
#[cfg(test)]
extern crate std;

/// The host's atomic operations, under one name: `tests/model` compiles the protocol with a model's instead.
#[cfg(not(target_arch = "bpf"))]
mod atomic {
    pub(crate) use core::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
}

/// How long a CPU waits for another. Apart from the protocol, because `tests/model` has lower limits.
mod spin {
    /// Looks at a lock word that another CPU holds. A holder needs some hundred nanoseconds; a look takes
    /// about two.
    pub(crate) const LOOKS: u32 = 128;
    /// Looks at a slot that another CPU holds, with a pause between two: some 40 ns each in the kernel.
    pub(crate) const PAUSED_LOOKS: u32 = 1_024;
    /// Attempts to lock a slot, each after a wait: some 300 µs in all, because an interrupt may come to the
    /// holder's CPU, or a hypervisor take it away, and where both ends of a connection are local, both work
    /// on its record at once.
    pub(crate) const TRIES: u32 = 8;
    /// Attempts of a reader to copy a slot between two equal tags. A transition takes well under a
    /// microsecond.
    #[cfg(not(target_arch = "bpf"))]
    pub(crate) const READ_TRIES: u32 = 1_000;
}

/// Defines an enum together with `ALL`, its variants in their order, so that none is missing there.
macro_rules! listed {
    ($(#[$about:meta])* pub enum $name:ident {
        $($(#[$variant_about:meta])* $variant:ident $(= $number:expr)?,)+
    }) => {
        $(#[$about])*
        pub enum $name {
            $($(#[$variant_about])* $variant $(= $number)?,)+
        }

        impl $name {
            /// Every variant, in order.
            pub const ALL: [Self; [$($name::$variant),+].len()] = [$(Self::$variant),+];
        }
    };
}

pub mod abi;
pub mod books;
mod counter;
pub mod engine;
pub mod flow;
#[cfg(any(test, feature = "host"))]
pub mod host;
pub mod interface;
pub mod latency;
#[cfg(not(target_arch = "bpf"))]
pub mod memory;
#[cfg(not(target_arch = "bpf"))]
pub mod random;
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

/// Where `size` bytes from `start` end. Unless they lie at an offset that the compiler knows, it does not see
/// the sum: it would compare with the end of the packet less the size, and the verifier lets no program
/// calculate with that.
#[cfg_attr(
    target_arch = "bpf",
    expect(clippy::cast_possible_truncation, reason = "BPF's addresses have 64 bits")
)]
#[inline(always)]
#[must_use]
pub fn end_of(start: usize, offset: u32, size: usize) -> usize {
    let end = start + size;
    #[cfg(target_arch = "bpf")]
    if !core::intrinsics::is_val_statically_known(offset) {
        return opaque(end as u64) as usize;
    }
    let _ = offset;
    end
}

/// The same word, of which the compiler knows nothing more.
#[inline(always)]
#[must_use]
pub fn opaque(word: u64) -> u64 {
    #[cfg(target_arch = "bpf")]
    {
        let mut word = word;
        // SAFETY: a register is moved to itself.
        unsafe { core::arch::asm!("{0} = {0}", inout(reg) word, options(pure, nomem, nostack)) };
        word
    }
    #[cfg(not(target_arch = "bpf"))]
    {
        word
    }
}

/// [`opaque`], but of a constant.
#[inline(always)]
#[must_use]
pub fn opaque_unless_known(word: u64) -> u64 {
    #[cfg(target_arch = "bpf")]
    if core::intrinsics::is_val_statically_known(word) {
        return word;
    }
    opaque(word)
}

/// 1 when `a < b`, else 0, without a branch: the sign of the difference, which must fit. By an operation that
/// the compiler does not see through: it would make a comparison of it, and a branch for each use.
#[inline(always)]
#[must_use]
pub fn below(a: i64, b: i64) -> u64 {
    let difference = a.wrapping_sub(b).cast_unsigned();
    #[cfg(target_arch = "bpf")]
    {
        if core::intrinsics::is_val_statically_known(difference) {
            return difference >> 63;
        }
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

/// All bits if `a` is below 0, else none, without a branch, as [`below`], and in turn, as [`shifted`].
#[inline(always)]
#[must_use]
pub fn sign(a: i64) -> i64 {
    #[cfg(target_arch = "bpf")]
    {
        let mut sign = a;
        // SAFETY: one operation on a register.
        unsafe { core::arch::asm!("{0} s>>= 63", inout(reg) sign, options(nomem, nostack)) };
        sign
    }
    #[cfg(not(target_arch = "bpf"))]
    {
        a >> 63
    }
}

/// `word << BITS`, in turn with the loads of shared words: left to itself the compiler loads all first and
/// computes later, and what it loaded lies on the stack meanwhile.
#[inline(always)]
#[must_use]
pub fn shifted<const BITS: u32>(word: u64) -> u64 {
    #[cfg(target_arch = "bpf")]
    {
        let mut word = word;
        // SAFETY: one operation on a register.
        unsafe {
            core::arch::asm!("{0} <<= {1}", inout(reg) word, const BITS, options(nomem, nostack));
        }
        word
    }
    #[cfg(not(target_arch = "bpf"))]
    {
        word << BITS
    }
}

/// The lower half of a word.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "the lower half is what is asked for")]
const fn low_half(word: u64) -> u32 {
    word as u32
}
