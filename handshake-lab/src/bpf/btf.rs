//! The BTF of a program with several functions: the kernel requires that each function is known to return an
//! `int` before one of them may make a tail call.

use anyhow::Result;

/// The type ID of every function: `int function(void *context)`.
pub(super) const FUNCTION: u32 = 4;

const INT: u32 = 1;
const POINTER: u32 = 2;
const PROTOTYPE: u32 = 3;

/// The string section: `int`, `context`, `function`.
const NAMES: &[u8] = b"\0int\0context\0function\0";
const NAME_INT: u32 = 1;
const NAME_CONTEXT: u32 = 5;
const NAME_FUNCTION: u32 = 13;

/// The BTF as BPF_BTF_LOAD expects it (Documentation/bpf/btf.rst).
pub(super) fn types() -> Result<Vec<u8>> {
    const MAGIC_AND_VERSION: u32 = 0x0001_eb9f;
    const HEADER: u32 = 24;
    const SIGNED_32: u32 = 1 << 24 | 32;
    let kind = |kind: u32, count: u32| kind << 24 | count;
    let types = [
        &[NAME_INT, kind(1, 0), 4, SIGNED_32][..],
        &[0, kind(2, 0), 0],
        &[0, kind(13, 1), INT, NAME_CONTEXT, POINTER],
        &[NAME_FUNCTION, kind(12, 0), PROTOTYPE],
    ]
    .concat();
    let length = u32::try_from(types.len() * 4)?;
    let names = u32::try_from(NAMES.len())?;
    let header = [MAGIC_AND_VERSION, HEADER, 0, length, length, names];
    let words = header.into_iter().chain(types);
    Ok(words.flat_map(u32::to_ne_bytes).chain(NAMES.iter().copied()).collect())
}
