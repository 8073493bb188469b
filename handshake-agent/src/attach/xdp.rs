//! XDP: the program on the hook by a BPF link, and the kernel's reason where a hook is refused. A link gives
//! only an error number, but the same request by netlink gives the reason too.

use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::sync::Arc;

use aya::programs::XdpMode;
use libc::RTM_SETLINK;

use super::bpf::{interface_of, link_xdp};
use super::driver::effect;
use super::interface::InterfaceInfo;
use super::watch::{Guard, unanswered};
use crate::hook::HookState;
use crate::netlink::{MessageBody, Netlink, ROUTE, Refusal, link_header};

/// Attributes inside `IFLA_XDP`.
const XDP_FD: u16 = 1;
const XDP_FLAGS: u16 = 3;
const XDP_EXPECTED_FD: u16 = 8;
/// Values of `XDP_FLAGS_*`.
const IF_NOEXIST: u32 = 1;
const SKB_MODE: u32 = 1 << 1;
const DRV_MODE: u32 = 1 << 2;
const REPLACE: u32 = 1 << 4;

/// Why native XDP is not attached a second time to hardware.
pub(super) const RESETS_DRIVER: &str =
    "native XDP would set up the driver anew: start handshake again for that";

/// Keeps our program on an XDP hook until it is dropped.
#[derive(Debug)]
pub(super) struct XdpGuard {
    program: Arc<OwnedFd>,
    id: u32,
    index: u32,
    mode: XdpMode,
    /// Whether attaching may reset a driver. That is done once, at the start.
    resets_driver: bool,
    link: Option<OwnedFd>,
}

impl XdpGuard {
    /// Attaches the program with this id.
    pub(super) fn attach(
        program: Arc<OwnedFd>,
        id: u32,
        info: &InterfaceInfo,
        mode: XdpMode,
    ) -> Result<Self, Refusal> {
        let resets_driver = matches!(mode, XdpMode::Driver) && effect(info).interrupts();
        let mut guard = Self { program, id, index: info.index, mode, resets_driver, link: None };
        guard.link()?;
        Ok(guard)
    }

    fn link(&mut self) -> Result<(), Refusal> {
        let flags = flags(self.mode);
        let link = link_xdp(&self.program, self.index, flags).map_err(|error| Refusal {
            words: refusal_words(&*self.program, self.index, flags),
            ..Refusal::from(error)
        })?;
        self.link = Some(link);
        Ok(())
    }
}

impl Guard for XdpGuard {
    /// A link that was detached, or whose interface is gone, is on no interface. One that is on an interface
    /// of another network namespace is told by the program on this one.
    fn look(&mut self, now: &InterfaceInfo, _: &mut Netlink) -> HookState {
        let is_other = now.xdp.is_none_or(|xdp| xdp.id != 0 && xdp.id != self.id);
        match self.link.as_ref().map_or(Ok(0), interface_of) {
            Ok(0) => HookState::Gone,
            Ok(_) if is_other => HookState::Gone,
            Ok(_) => HookState::Ours,
            Err(error) => unanswered(&error),
        }
    }

    fn take_link(&mut self) -> Option<OwnedFd> {
        self.link.take()
    }

    fn is_detached(&self) -> bool {
        self.link.as_ref().is_none_or(|link| matches!(interface_of(link), Ok(0)))
    }

    fn attach_again(&mut self, _: &mut Netlink) -> Result<(), Refusal> {
        if self.resets_driver {
            return Err(Refusal { errno: libc::EOPNOTSUPP, words: Some(RESETS_DRIVER.to_owned()) });
        }
        self.link = None;
        self.link()
    }
}

const fn flags(mode: XdpMode) -> u32 {
    match mode {
        XdpMode::Skb => SKB_MODE,
        XdpMode::Driver => DRV_MODE,
        XdpMode::Default | XdpMode::Hardware => 0,
    }
}

/// The kernel's reason for refusing this program on this hook, from a second attempt by netlink. If that
/// attempt succeeds, the program is detached again: such an attachment would outlive the process.
fn refusal_words(program: &impl AsFd, index: u32, mode: u32) -> Option<String> {
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
