//! Hands on the kernel side's lines (aya-log): what it made of each handshake segment. Off by default: with
//! level 0 the verifier removes them from the programs.

use std::io;
use std::sync::{Arc, OnceLock};

use aya::Ebpf;
use aya_log::EbpfLogger;
use log::{Log, Metadata, Record};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::error::LiveError;

/// The value of `AYA_LOG_LEVEL` that lets every line through.
pub(super) const EVERYTHING: u8 = aya_log::Level::Trace as u8;

/// The reader of the kernel side's lines. It holds their ring, so keep it until the programs are loaded.
#[must_use = "without its reader the programs that log cannot be loaded"]
pub struct KernelLog {
    logger: EbpfLogger<Lines>,
    to: Arc<OnceLock<fn(&str)>>,
}

impl KernelLog {
    pub(super) fn new(bpf: &mut Ebpf) -> Result<Self, LiveError> {
        let to = Arc::new(OnceLock::new());
        let logger = EbpfLogger::init_with_logger(bpf, Lines(Arc::clone(&to)));
        let logger = logger.map_err(|error| LiveError::Damaged(format!("AYA_LOGS: {error}")))?;
        Ok(Self { logger, to })
    }

    /// Calls `to` with each line as it arrives, until the future is dropped. Runs inside a tokio runtime with
    /// I/O; returns only with an error, when waiting for the ring fails.
    pub async fn forward(self, to: fn(&str)) -> io::Result<()> {
        // It is the first: nothing else sets it.
        let _ = self.to.set(to);
        // SAFETY: the descriptor is the ring's map, which the logger owns and never replaces: it stays open
        // and the same until the `AsyncFd` drops the logger.
        let ring = unsafe { AsyncFd::register_with_interest(self.logger, Interest::READABLE) };
        let mut ring = ring.map_err(|error| error.into_parts().1)?;
        loop {
            let mut ready = ring.readable_mut().await?;
            ready.get_inner_mut().flush();
            ready.clear_ready();
        }
    }
}

/// Makes one line of each record.
#[derive(Clone, Debug)]
struct Lines(Arc<OnceLock<fn(&str)>>);

impl Log for Lines {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let Some(to) = self.0.get() else { return };
        let level = record.level().as_str().to_ascii_lowercase();
        let line = record.args().to_string();
        to(&format!("kernel: {level}: {}", line.trim_end()));
    }

    fn flush(&self) {}
}
