//! Promiscuous mode for mirror ports, held by a packet socket. The kernel ends it when the socket closes,
//! however the process ends.

use std::io;
use std::os::fd::OwnedFd;

use libc::{PACKET_ADD_MEMBERSHIP, PACKET_MR_PROMISC, SOL_PACKET};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use super::capability::{NET_RAW, fix};
use crate::error::Error;

/// Holds interfaces in promiscuous mode until it is dropped.
#[derive(Debug)]
pub(super) struct Promisc {
    socket: OwnedFd,
}

impl Promisc {
    /// Holds none yet.
    ///
    /// # Errors
    ///
    /// [`Error::Permission`] without CAP_NET_RAW.
    pub(super) fn open() -> Result<Self, Error> {
        Ok(Self { socket: packet_socket().map_err(refused)? })
    }

    /// Puts an interface into promiscuous mode. Takes no privilege.
    ///
    /// # Errors
    ///
    /// [`Error::System`] if the interface no longer exists.
    pub(super) fn hold(&self, index: u32) -> Result<(), Error> {
        add_membership(&self.socket, index).map_err(refused)
    }
}

fn refused(error: io::Error) -> Error {
    if error.kind() != io::ErrorKind::PermissionDenied {
        return Error::system("turn on promiscuous mode")(error);
    }
    Error::Permission { missing: vec![NET_RAW.name.into()], fix: fix(true), kernel: Some(error.to_string()) }
}

/// Opens a packet socket that receives nothing: its protocol is 0.
fn packet_socket() -> io::Result<OwnedFd> {
    Ok(socket_with(AddressFamily::PACKET, SocketType::RAW, SocketFlags::CLOEXEC, None)?)
}

fn add_membership(socket: &OwnedFd, index: u32) -> io::Result<()> {
    let request = libc::packet_mreq {
        mr_ifindex: index.cast_signed(),
        mr_type: u16::try_from(PACKET_MR_PROMISC).unwrap_or_default(),
        mr_alen: 0,
        mr_address: [0; 8],
    };
    crate::netlink::set_option(socket, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &request)
}
