//! What Wireshark calls `tcp.completeness`, by its rules, as far as a record holds what they ask for.
//!
//! Wireshark looks at flags only: each bit says that a segment of a kind was seen in a stream, whatever its numbers.
//! The bits for data (8) and FIN (16) are left out: a record does not tell.

use handshake_common::abi::{TcpRecord, tag};
use handshake_common::record::Record;

/// A SYN without ACK.
const SYN: u8 = 1;
/// A SYN with ACK.
const SYN_ACK: u8 = 2;
/// An ACK without SYN. Wireshark asks that it has no data, and takes that of a FIN or RST too; a record counts
/// the packets of class ack.
const ACK: u8 = 4;
/// A RST, at whatever sequence number.
const RST: u8 = 32;

/// The bits of a TCP record.
pub(super) fn of(record: &Record, tcp: &TcpRecord) -> u8 {
    // A third segment with FIN is not of class ack; two crossing SYN+ACKs complete without any ACK.
    let third = record.state.is_completed() && record.flags & tag::SIMULTANEOUS == 0;
    let bit = |seen: bool, bit: u8| if seen { bit } else { 0 };
    bit(tcp.syn != 0, SYN)
        | bit(tcp.syn_ack != 0, SYN_ACK)
        | bit(tcp.ack != 0 || third, ACK)
        | bit(record.flags & tag::RESET != 0, RST)
}
