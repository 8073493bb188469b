//! Loading programs into the kernel, also while signals come.

use std::io;

use aya::Ebpf;
use aya::maps::{MapError, ProgramArray};
use aya::programs::{Program, ProgramError, ProgramFd};

/// The programs at hooks, each with the program that it tail-calls for what it leaves, and the array in which
/// it finds that.
const NEXT: [(&str, &str, &str); 3] = [
    ("handshake_xdp", "handshake_xdp_rest", "NEXT_XDP"),
    ("handshake_ingress", "handshake_rest", "NEXT_TC"),
    ("handshake_egress", "handshake_rest", "NEXT_TC"),
];

/// The program that the one called `name` tail-calls, and the array in which it finds it.
#[must_use]
pub fn next(name: &str) -> Option<(&'static str, &'static str)> {
    NEXT.iter().find(|(first, ..)| *first == name).map(|&(_, next, array)| (next, array))
}

/// A program that could not be loaded.
#[derive(Debug, thiserror::Error)]
#[error("load {program}")]
pub struct NotLoaded {
    /// Its name: that of the program asked for, or of the one that it tail-calls.
    pub program: String,
    /// Why not.
    pub source: ProgramError,
}

/// Loads the program `name`, and before it the one that it tail-calls, unless they are loaded already: the
/// verifier takes some tenths of a second per program. The programs of an object without the array for the
/// second are whole.
///
/// # Errors
///
/// Those of the kernel, and [`ProgramError::NotLoaded`] if the object has no such program.
pub fn program(bpf: &mut Ebpf, name: &str) -> Result<(), NotLoaded> {
    let failed = |program: &str, source| NotLoaded { program: program.to_owned(), source };
    if let Some((next, array)) = next(name).filter(|(_, array)| bpf.map(array).is_some()) {
        follow(bpf, next, array).map_err(|error| failed(next, error))?;
    }
    load_one(bpf, name).map(drop).map_err(|error| failed(name, error))
}

fn follow(bpf: &mut Ebpf, next: &str, array: &str) -> Result<(), ProgramError> {
    let next = load_one(bpf, next)?;
    let map = bpf.map_mut(array).ok_or_else(|| MapError::InvalidName { name: array.to_owned() })?;
    Ok(ProgramArray::try_from(map)?.set(0, &next, 0)?)
}

fn load_one(bpf: &mut Ebpf, name: &str) -> Result<ProgramFd, ProgramError> {
    let program = bpf.program_mut(name).ok_or(ProgramError::NotLoaded)?;
    if program.fd().is_err() {
        uninterrupted(|| {
            if let Program::Xdp(program) = program {
                program.load()
            } else if let Program::SchedClassifier(program) = program {
                program.load()
            } else if let Program::CgroupSock(program) = program {
                program.load()
            } else {
                Err(ProgramError::UnexpectedProgramType)
            }
        })?;
    }
    Ok(program.fd()?.try_clone()?)
}

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
