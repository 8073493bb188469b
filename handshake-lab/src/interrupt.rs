//! Records SIGINT (Ctrl-C), SIGTERM and SIGHUP (closed terminal) instead of dying of them, which would leave
//! namespaces behind.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Installs the signal handlers.
pub fn catch() {
    extern "C" fn note(_signal: libc::c_int) {
        INTERRUPTED.store(true, Ordering::Relaxed);
    }
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        let handler = note as extern "C" fn(libc::c_int) as libc::sighandler_t;
        // SAFETY: the handler only stores to an atomic, which is async-signal-safe.
        unsafe { libc::signal(signal, handler) };
    }
}

/// Fails once a signal has arrived, so that the caller returns and everything is removed on the way.
///
/// # Errors
/// A signal has arrived.
pub fn check() -> Result<()> {
    ensure!(!INTERRUPTED.load(Ordering::Relaxed), "interrupted: the network is removed");
    Ok(())
}

/// Sleeps until `time`, and fails once a signal has arrived.
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
