//! Finds out why an XDP hook was refused: a BPF link gives only an error number, but the same request by
//! netlink gives the reason too.

use std::os::fd::{AsFd, AsRawFd as _};

use aya::programs::XdpMode;
use libc::RTM_SETLINK;

use super::netlink::{MessageBody, Netlink, ROUTE, link_header};

/// Attributes inside `IFLA_XDP`.
const XDP_FD: u16 = 1;
const XDP_FLAGS: u16 = 3;
const XDP_EXPECTED_FD: u16 = 8;
/// Values of `XDP_FLAGS_*`.
const IF_NOEXIST: u32 = 1;
const SKB_MODE: u32 = 1 << 1;
const DRV_MODE: u32 = 1 << 2;
const REPLACE: u32 = 1 << 4;

/// The kernel's reason for refusing this program on this hook, from a second attempt by netlink. If that
/// attempt succeeds, the program is detached again: such an attachment would outlive the process.
pub(super) fn refusal_words(program: &impl AsFd, index: u32, mode: XdpMode) -> Option<String> {
    let mode = match mode {
        XdpMode::Skb => SKB_MODE,
        XdpMode::Driver => DRV_MODE,
        XdpMode::Default | XdpMode::Hardware => 0,
    };
    let fd = program.as_fd().as_raw_fd();
    let mut netlink = Netlink::open(ROUTE).ok()?;
    let try_it = request(index, &[(XDP_FD, fd.cast_unsigned()), (XDP_FLAGS, mode | IF_NOEXIST)]);
    match netlink.request(RTM_SETLINK, 0, try_it.bytes()) {
        Err(refusal) => refusal.words,
        Ok(_) => {
            let none = (-1_i32).cast_unsigned();
            let undo = [(XDP_FD, none), (XDP_EXPECTED_FD, fd.cast_unsigned()), (XDP_FLAGS, mode | REPLACE)];
            netlink.request(RTM_SETLINK, 0, request(index, &undo).bytes()).ok();
            None
        }
    }
}

fn request(index: u32, attributes: &[(u16, u32)]) -> MessageBody {
    let inner = attributes
        .iter()
        .fold(MessageBody::default(), |body, (kind, value)| body.with(*kind, &value.to_ne_bytes()));
    MessageBody::new(&link_header(index)).nest(libc::IFLA_XDP, &inner)
}
