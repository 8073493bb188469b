//! Two tun or tap devices that are joined as a virtual machine's are: what one host sends comes in at the
//! other by a virtio header, super-packets as they are.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::namespace::Namespace;

/// What a virtual device carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VirtualLink {
    /// IP packets.
    Tun,
    /// Ethernet frames.
    Tap,
}

/// The wire between two devices: a thread that hands over what either of them sends, until it is dropped.
#[derive(Debug)]
pub struct VirtualWire {
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl VirtualWire {
    /// Makes a device called `name` in each namespace, with segmentation left to the other end, and joins
    /// them.
    ///
    /// # Errors
    /// The kernel has no tun devices, or before Linux 6.2, which does not leave UDP's segmentation to them.
    pub fn new(name: &str, link: VirtualLink, ends: [&Namespace; 2]) -> Result<Self> {
        let [near, far] = ends.map(|end| end.enter(|| device(name, link)));
        let (near, far) = (near?, far?);
        let is_over = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&is_over);
        let thread = thread::spawn(move || relay(&near, &far, &seen));
        Ok(Self { is_over, thread: Some(thread) })
    }
}

impl Drop for VirtualWire {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// `TUN_F_USO4` and `TUN_F_USO6` of `linux/if_tun.h`: segmentation of UDP.
const UDP_OFFLOAD: libc::c_uint = libc::TUN_F_USO4 | libc::TUN_F_USO6;
/// Checksums and segmentation are left to the one who reads.
const OFFLOAD: libc::c_uint = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | UDP_OFFLOAD;

/// Makes a device in the namespace of this thread.
fn device(name: &str, link: VirtualLink) -> Result<File> {
    let file = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun");
    let file = file.context("open /dev/net/tun")?;
    let kind = match link {
        VirtualLink::Tun => libc::IFF_TUN,
        VirtualLink::Tap => libc::IFF_TAP,
    };
    // SAFETY: the structure consists of integers and a union of them, for which zero is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    ensure!(name.len() < request.ifr_name.len(), "{name} is too long");
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(kind | libc::IFF_NO_PI | libc::IFF_VNET_HDR)?;
    // SAFETY: the kernel reads and writes one `ifreq`, which outlives the call.
    let made = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    ensure!(made == 0, "make {name}: {}", io::Error::last_os_error());
    // SAFETY: this request takes its argument by value.
    let set = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETOFFLOAD, libc::c_ulong::from(OFFLOAD)) };
    ensure!(set == 0, "leave segmentation to the reader of {name}: {}", io::Error::last_os_error());
    Ok(file)
}

/// Hands each packet of one device, with its virtio header, to the other.
fn relay(near: &File, far: &File, is_over: &AtomicBool) {
    /// How soon the thread sees that it is over.
    const WAIT: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
    /// More than an IP packet, its link header and the virtio header.
    const ROOM: usize = 66_000;
    let mut packet = vec![0; ROOM];
    while !is_over.load(Ordering::Relaxed) {
        let mut both = [near, far].map(|end| PollFd::from_borrowed_fd(end.as_fd(), PollFlags::IN));
        let _ = poll(&mut both, Some(&WAIT));
        for (mut from, mut to) in [(near, far), (far, near)] {
            while let Ok(length) = from.read(&mut packet) {
                // A device that is down takes nothing, like an unplugged one.
                let _ = to.write(&packet[..length]);
            }
        }
    }
}
