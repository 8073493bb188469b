//! Loading programs into the kernel while signals come.

use std::io;

use aya::programs::ProgramError;

/// How often a load is repeated that a signal has interrupted.
const TRIES: u32 = 100;

/// Loads by `load`, again where a signal interrupts the verifier: it looks for one at each jump and gives
/// EAGAIN (kernel/bpf/verifier.c, `do_check`). Stopping and continuing the process is such a signal.
///
/// # Errors
///
/// Those of `load`.
pub(crate) fn uninterrupted(mut load: impl FnMut() -> Result<(), ProgramError>) -> Result<(), ProgramError> {
    let mut left = TRIES;
    loop {
        match load() {
            Err(error) if is_interrupted(&error) && left > 0 => left -= 1,
            loaded => return loaded,
        }
    }
}

fn is_interrupted(error: &ProgramError) -> bool {
    matches!(error, ProgramError::LoadError { io_error, .. } if io_error.kind() == io::ErrorKind::WouldBlock)
}
