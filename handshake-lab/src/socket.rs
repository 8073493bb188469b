//! What sockets of both transports have in common.

use anyhow::{Context, Result};
use socket2::{SockFilter, Socket};

/// Has the kernel drop every packet that comes to `socket`.
pub(crate) fn deafen(socket: &Socket) -> Result<()> {
    /// `BPF_RET | BPF_K`: keep no byte.
    const DROP: SockFilter = SockFilter::new(0x06, 0, 0, 0);
    socket.attach_filter(&[DROP]).context("attach a filter that drops")
}
