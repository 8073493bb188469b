//! Reads captures: pcap and pcapng, plain or gzip, packet by packet. Streams and never seeks, so that a FIFO or
//! standard input works like a file. Memory is never allocated because of a length that the input claims.
//!
//! ```text
//! reader            a capture from its head to its end: its packets, and warnings about it
//! ├─ error          why a capture cannot be read; warnings about one that could
//! │  └─ link        link types: the registry's numbers, and which of them are read
//! └─ format         which format a capture has
//!    ├─ classic     pcap
//!    └─ pcapng      pcapng
//!       ├─ timestamp   units and offsets of time stamps, as nanoseconds
//!       └─ record   an input that is cut into records (`classic` uses it too)
//!          └─ stream   the bytes of the input in order, unpacked if they are gzip
//! squeeze           shortens the pauses of a capture
//! ```
//!
//! What may not live here: the engine (a packet's bytes are handed on unparsed), output of any kind (warnings are
//! values), and any clock (the only times are those in the file).

mod classic;
mod error;
mod format;
mod link;
mod pcapng;
mod reader;
mod record;
mod squeeze;
mod stream;
#[cfg(test)]
mod tests;
mod timestamp;

pub use error::{Error, Warning};
pub use reader::{Capture, CapturedPacket};
pub use squeeze::Squeeze;
