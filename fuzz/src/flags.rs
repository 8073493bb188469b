//! The class of a TCP segment by its flags. Written independently of `handshake_common::wire`: an oracle must
//! not call the code that it judges.

use handshake_common::wire::{Class, flag};

/// The class by the first rule that fits.
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

/// Is the class one of TCP's?
pub(crate) fn is_tcp(class: Class) -> bool {
    (class as u8) <= Class::TcpOther as u8
}
