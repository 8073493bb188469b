//! Asks the kernel which XDP features a driver has (generic netlink family `netdev`, Linux 6.3). The device
//! is not touched.

use libc::{CTRL_CMD_GETFAMILY, GENL_ID_CTRL};

use crate::netlink::{GENERIC, MessageBody, Netlink, find, u16_at, u64_at};

/// Size of `struct genlmsghdr` (command, version, reserved), bytes.
const HEADER: usize = 4;
/// `NETDEV_CMD_DEV_GET`, `NETDEV_A_DEV_IFINDEX` and `NETDEV_A_DEV_XDP_FEATURES`.
const DEV_GET: u8 = 1;
const DEV_IFINDEX: u16 = 1;
const DEV_XDP_FEATURES: u16 = 3;

/// The bits of `enum netdev_xdp_act`; `None` if the kernel does not report them.
pub(super) fn xdp_features(index: u32) -> Option<u64> {
    let mut netlink = Netlink::open(GENERIC).ok()?;
    let family = family(&mut netlink)?;
    let body = MessageBody::new(&[DEV_GET, 1, 0, 0]).with(DEV_IFINDEX, &index.to_ne_bytes());
    let answers = netlink.request(family, 0, body.bytes()).ok()?;
    let attributes = answers.first()?.body.get(HEADER..)?;
    u64_at(find(attributes, DEV_XDP_FEATURES)?, 0)
}

/// The number that the kernel assigned to the family `netdev`.
fn family(netlink: &mut Netlink) -> Option<u16> {
    let command = u8::try_from(CTRL_CMD_GETFAMILY).ok()?;
    let name = u16::try_from(libc::CTRL_ATTR_FAMILY_NAME).ok()?;
    let id = u16::try_from(libc::CTRL_ATTR_FAMILY_ID).ok()?;
    let body = MessageBody::new(&[command, 1, 0, 0]).with(name, b"netdev\0");
    let control = u16::try_from(GENL_ID_CTRL).ok()?;
    let answers = netlink.request(control, 0, body.bytes()).ok()?;
    u16_at(find(answers.first()?.body.get(HEADER..)?, id)?, 0)
}
