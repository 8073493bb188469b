//! Devices on top of a cable, of kinds that a kernel may lack: two hosts, with a device `v0` each.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr;

use anyhow::{Context, Result, bail, ensure};

use crate::frame::Mac;
use crate::namespace::Namespace;
use crate::topology::{DEVICE, Pair, Path};

/// The device whose packets are watched.
pub const TOP: &str = "v0";

/// What is on top of the cable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkKind {
    /// A VLAN of it.
    Vlan,
    /// A bond of one port.
    Bond,
    /// A tunnel of WireGuard through it.
    Wireguard,
    /// PPP, over a terminal in its place.
    Ppp,
}

impl LinkKind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Vlan, Self::Bond, Self::Wireguard, Self::Ppp];

    /// As iproute2 spells it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Vlan => "vlan",
            Self::Bond => "bond",
            Self::Wireguard => "wireguard",
            Self::Ppp => "ppp",
        }
    }

    /// Whether its frames are Ethernet's, which generic XDP needs.
    #[must_use]
    pub const fn has_ethernet(self) -> bool {
        matches!(self, Self::Vlan | Self::Bond)
    }
}

/// Two hosts whose devices `v0` reach each other.
#[derive(Debug)]
pub struct Linked {
    pair: Pair,
    /// The terminals and units of PPP: its devices last as long.
    _held: Vec<OwnedFd>,
}

impl Linked {
    /// Makes both hosts and their devices.
    ///
    /// # Errors
    /// iproute2 fails, or the kernel lacks the kind.
    pub fn new(kind: LinkKind) -> Result<Self> {
        let pair = Pair::new()?;
        let ends = [&pair.client, &pair.server];
        let mut held = Vec::new();
        match kind {
            LinkKind::Vlan => {
                for end in ends {
                    end.ip(&[&format!("link add link {DEVICE} name {TOP} type vlan id 5")])?;
                }
            }
            LinkKind::Bond => {
                for end in ends {
                    end.ip(&[
                        &format!("link add {TOP} type bond mode active-backup"),
                        &format!("link set {DEVICE} down"),
                        &format!("link set {DEVICE} master {TOP}"),
                    ])?;
                }
            }
            LinkKind::Wireguard => wireguard(ends)?,
            LinkKind::Ppp => held = ppp(ends)?,
        }
        for (end, [own, other]) in ends.into_iter().zip([[1, 2], [2, 1]]) {
            let peer = if kind == LinkKind::Ppp { format!(" peer 10.9.0.{other}") } else { "/24".to_owned() };
            end.ip(&[&format!("link set {TOP} up"), &format!("addr add 10.9.0.{own}{peer} dev {TOP}")])?;
        }
        Ok(Self { pair, _held: held })
    }

    /// The host of the initiators.
    #[must_use]
    pub fn client(&self) -> &Namespace {
        &self.pair.client
    }

    /// The path from the client to the server. No frame can be crafted for it.
    #[must_use]
    pub fn path(&self) -> Path<'_> {
        Path {
            client: &self.pair.client,
            server: &self.pair.server,
            device: TOP,
            macs: [Mac([0; 6]); 2],
            source: [10, 9, 0, 1].into(),
            destination: [10, 9, 0, 2].into(),
            unassigned: None,
        }
    }
}

/// A tunnel between both ends, each with a key of its own.
fn wireguard(ends: [&Namespace; 2]) -> Result<()> {
    const PORT: &str = "51820";
    let mut public = Vec::new();
    let files = [0, 1].map(|number| format!("/tmp/{}-{number}.key", ends[number].name()));
    for (end, file) in ends.into_iter().zip(&files) {
        fs::write(file, end.run("wg", &["genkey"])?).with_context(|| format!("write {file}"))?;
        public.push(end.run("sh", &["-c", &format!("wg pubkey < {file}")])?.trim().to_owned());
    }
    for (number, end) in ends.into_iter().enumerate() {
        let other = 1 - number;
        end.ip(&[&format!("link add {TOP} type wireguard")])?;
        let endpoint = format!("192.0.2.{}:{PORT}", other + 1);
        let arguments = ["set", TOP, "listen-port", PORT, "private-key", &files[number], "peer"];
        let peer = [public[other].as_str(), "allowed-ips", "10.9.0.0/24", "endpoint", &endpoint];
        end.run("wg", &[&arguments[..], &peer].concat())?;
        fs::remove_file(&files[number]).context("remove a key")?;
    }
    Ok(())
}

/// PPP between the two ends of a pseudo-terminal: IP alone, and nothing is negotiated.
fn ppp(ends: [&Namespace; 2]) -> Result<Vec<OwnedFd>> {
    let (mut near, mut far) = (-1, -1);
    // SAFETY: two descriptors are written, and nothing is asked for beside them.
    let opened =
        unsafe { libc::openpty(&raw mut near, &raw mut far, ptr::null_mut(), ptr::null(), ptr::null()) };
    ensure!(opened == 0, "open a terminal: {}", io::Error::last_os_error());
    // SAFETY: both were opened just now, and nothing else closes them.
    let terminals = unsafe { [OwnedFd::from_raw_fd(near), OwnedFd::from_raw_fd(far)] };
    let mut held = Vec::new();
    for (end, terminal) in ends.into_iter().zip(terminals) {
        held.extend(end.enter(|| unit(&terminal))?);
        held.push(terminal);
        end.ip(&[&format!("link set ppp0 name {TOP}")])?;
    }
    Ok(held)
}

/// Makes a device of PPP over a terminal, in this thread's namespace.
fn unit(terminal: &OwnedFd) -> Result<[OwnedFd; 2]> {
    /// `linux/tty.h`, `linux/ppp-ioctl.h`, `linux/ppp_defs.h`.
    const N_PPP: libc::c_int = 3;
    const PPPIOCGCHAN: libc::Ioctl = 0x8004_7437_u32 as libc::Ioctl;
    const PPPIOCATTCHAN: libc::Ioctl = 0x4004_7438;
    const PPPIOCNEWUNIT: libc::Ioctl = 0xc004_743e_u32 as libc::Ioctl;
    const PPPIOCCONNECT: libc::Ioctl = 0x4004_743a;
    const PPPIOCSNPMODE: libc::Ioctl = 0x4008_744b;
    const PPP_IP: libc::c_int = 0x21;
    let ask = |fd: &dyn AsRawFd, request, what: &str, mut words: [libc::c_int; 2]| {
        // SAFETY: each request reads and writes two integers at most, which outlive the call.
        let done = unsafe { libc::ioctl(fd.as_raw_fd(), request, words.as_mut_ptr()) };
        if done < 0 {
            bail!("PPP: {what}: {}", io::Error::last_os_error())
        }
        Ok(words[0])
    };
    let device = || -> Result<File> {
        OpenOptions::new().read(true).write(true).open("/dev/ppp").context("open /dev/ppp")
    };
    ask(terminal, libc::TIOCSETD, "set the line's discipline", [N_PPP, 0])?;
    let channel = ask(terminal, PPPIOCGCHAN, "name the channel", [0, 0])?;
    let (line, unit) = (device()?, device()?);
    ask(&line, PPPIOCATTCHAN, "open the channel", [channel, 0])?;
    let number = ask(&unit, PPPIOCNEWUNIT, "make a unit", [-1, 0])?;
    ask(&line, PPPIOCCONNECT, "connect the unit", [number, 0])?;
    ask(&unit, PPPIOCSNPMODE, "let IP pass", [PPP_IP, 0])?;
    Ok([line.into(), unit.into()])
}
