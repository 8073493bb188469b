//! Ctrl-C, SIGTERM and a closed terminal are noted only: to die of them would leave namespaces behind.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// From now on they are noted.
pub fn catch() {
    extern "C" fn note(_signal: libc::c_int) {
        INTERRUPTED.store(true, Ordering::Relaxed);
    }
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        let handler = note as extern "C" fn(libc::c_int) as libc::sighandler_t;
        // SAFETY: the handler stores to an atomic and does nothing else, which is allowed in one.
        unsafe { libc::signal(signal, handler) };
    }
}

/// Fails once one was noted: everything is removed on the way out.
///
/// # Errors
/// That.
pub fn check() -> Result<()> {
    ensure!(!INTERRUPTED.load(Ordering::Relaxed), "interrupted: the network is removed");
    Ok(())
}

/// Sleeps in short pieces.
///
/// # Errors
/// As [`check`].
pub fn pause_until(time: Instant) -> Result<()> {
    loop {
        check()?;
        let left = time.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        thread::sleep(left.min(Duration::from_millis(50)));
    }
}
