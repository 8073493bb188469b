//! Helpers for the sockets of both transports.

use anyhow::{Context, Result};
use socket2::{SockFilter, Socket};

/// Makes the kernel drop every packet that arrives at `socket`.
pub(crate) fn deafen(socket: &Socket) -> Result<()> {
    /// `BPF_RET | BPF_K` with 0: keep no byte.
    const DROP: SockFilter = SockFilter::new(0x06, 0, 0, 0);
    socket.attach_filter(&[DROP]).context("attach a filter that drops")
}
