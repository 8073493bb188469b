//! A TCP segment's class by its flags, in the words of the design: written again, for an oracle must
//! not ask the code it judges.

use handshake_common::wire::{Class, flag};

/// The first rule that fits.
pub(crate) fn class_of(flags: u8) -> Class {
    let has = |flag: u8| flags & flag != 0;
    match (has(flag::RST), has(flag::SYN), has(flag::FIN), has(flag::ACK)) {
        (true, ..) => Class::Rst,
        (_, true, _, true) => Class::SynAck,
        (_, true, ..) => Class::Syn,
        (_, _, true, _) => Class::Fin,
        (.., true) => Class::Ack,
        _ => Class::TcpOther,
    }
}

/// Is it a class of TCP?
pub(crate) fn is_tcp(class: Class) -> bool {
    (class as u8) <= Class::TcpOther as u8
}
