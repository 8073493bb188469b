//! Detaching from many hooks at the end.
//!
//! For each TCX link that closes, the kernel waits for a grace period of RCU with a lock held that all of
//! them need (`tcx_link_release` in `kernel/bpf/tcx.c`): 10 to 15 ms, one after the other, whichever thread
//! closes them, and also where the end of the process does. So of many links the last descriptors are left to
//! a child, which only closes them. It ends some seconds after the process.

use std::io::{PipeWriter, pipe};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

/// Links that are closed without a child: for half a second or so.
const FEW: usize = 40;

/// Closes links. Of many, a child closes the last descriptors, and this process need not wait.
pub(super) fn close(links: Vec<OwnedFd>) {
    let open = if links.len() > FEW { leave(&links) } else { None };
    drop(links);
    drop(open);
}

/// Starts a child that holds copies of these descriptors until the one that is returned is closed. Without
/// one, closing them takes its time.
fn leave(links: &[OwnedFd]) -> Option<PipeWriter> {
    let (closed, open) = pipe().ok()?;
    let mut kept: Vec<RawFd> = links.iter().map(AsRawFd::as_raw_fd).chain([closed.as_raw_fd()]).collect();
    kept.sort_unstable();
    // SAFETY: the child calls what is safe after fork in a process with threads (signal-safety(7)) and
    // nothing else: system calls and `_exit`. It allocates nothing, and its memory is its own.
    match unsafe { libc::fork() } {
        0 => {
            close_others(&kept);
            let mut byte = 0_u8;
            // SAFETY: `byte` is a local variable of one byte, and `_exit` takes no pointer.
            unsafe {
                // A signal may interrupt it.
                while libc::read(closed.as_raw_fd(), (&raw mut byte).cast(), 1) == -1 {}
                libc::_exit(0);
            }
        }
        -1 => None,
        _ => Some(open),
    }
}

/// Closes every descriptor but these, which are in order: the reader of a pipe must not wait for a child.
fn close_others(kept: &[RawFd]) {
    let mut first = 0;
    for last in kept.iter().copied().chain([RawFd::MAX]) {
        if first < last {
            // SAFETY: takes numbers only; nothing of the child uses the descriptors that it closes.
            unsafe { libc::syscall(libc::SYS_close_range, first, last - 1, 0) };
        }
        first = last.saturating_add(1);
    }
}
