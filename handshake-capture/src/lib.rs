//! Reads captures packet by packet: pcap and pcapng, plain or compressed. Input is streamed and never sought,
//! so a FIFO or standard input works like a file. Allocation follows the bytes received, never a length that
//! the input claims.
//!
//! ```text
//! merge             several captures as one, by time
//! └─ reader         an open capture: its packets in order, and warnings about it
//!    ├─ error          errors that prevent reading, and warnings about a capture that was read
//!    │  ├─ link        link types: the registry's numbers, and which of them are supported
//!    │  └─ condition   what a capture lacks, and how its times run
//!    ├─ origin         the interfaces that packets come from
//!    └─ format         detects the format
//!       ├─ classic     pcap
//!       └─ pcapng      pcapng
//!          ├─ timestamp   time stamps of any unit and offset, as nanoseconds
//!          └─ record   splits the input into records (`classic` uses it too)
//!             └─ stream   the bytes of the input in order
//!                └─ decompress   gzip, zstd, xz, bzip2 and lz4
//! unpacked          a file of any kind, decompressed (over `stream`)
//! squeeze           shortens the pauses in a capture
//! ```
//!
//! What may not live here: the engine (packets are passed on unparsed), output of any kind (warnings are
//! values), and any clock (the only times are those in the file).

#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

mod classic;
mod condition;
mod decompress;
mod error;
mod format;
mod link;
mod merge;
mod origin;
mod pcapng;
mod reader;
mod record;
mod squeeze;
mod stream;
#[cfg(test)]
mod tests;
mod timestamp;
mod unpacked;

pub use condition::{ClockSteps, Condition, OutOfOrder};
pub use error::{CaptureError, Warning};
pub use merge::{Captures, Progress};
pub use reader::{Capture, CaptureLosses, CapturedPacket};
pub use squeeze::Squeeze;
pub use unpacked::Unpacked;
