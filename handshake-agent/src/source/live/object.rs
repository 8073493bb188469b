//! Checks that the BPF object belongs to this agent's build, before the kernel loads it: records read with
//! another layout would give wrong figures instead of an error.

use handshake_common::abi::LAYOUT;
use object::{Object, ObjectSection, ObjectSymbol};

use crate::error::LiveError;

/// The symbol that holds the object's [`LAYOUT`].
const SYMBOL: &str = "HANDSHAKE_LAYOUT";

/// Checks that the object's record layout is the agent's.
pub(super) fn check_layout(elf: &[u8]) -> Result<(), LiveError> {
    let file = object::File::parse(elf)
        .map_err(|error| LiveError::Damaged(format!("it is not an ELF file: {error}")))?;
    let found = layout(&file);
    if found == Some(LAYOUT) { Ok(()) } else { Err(LiveError::OtherBuild { found, expected: LAYOUT }) }
}

fn layout(file: &object::File<'_>) -> Option<u64> {
    let symbol = file.symbols().find(|symbol| symbol.name() == Ok(SYMBOL))?;
    let section = file.section_by_index(symbol.section_index()?).ok()?;
    // In a relocatable object a symbol's address is its offset in its section.
    let bytes = section.data_range(symbol.address(), size_of::<u64>() as u64).ok()??;
    let word = <[u8; 8]>::try_from(bytes).ok()?;
    Some(if file.is_little_endian() { u64::from_le_bytes(word) } else { u64::from_be_bytes(word) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_not_an_object_is_damaged() {
        for bytes in [&b""[..], b"\x7fELF", &[0; 4096]] {
            assert!(matches!(check_layout(bytes), Err(LiveError::Damaged(_))), "{} bytes", bytes.len());
        }
    }

    /// The test's own executable is an ELF file without the symbol.
    #[test]
    fn an_object_without_a_layout_is_from_another_build() {
        let elf = std::fs::read("/proc/self/exe").expect("our own executable");
        let error = check_layout(&elf).expect_err("it has no layout");
        assert!(matches!(error, LiveError::OtherBuild { found: None, .. }), "{error}");
        assert!(error.to_string().contains("cargo xtask build-ebpf"));
    }
}
