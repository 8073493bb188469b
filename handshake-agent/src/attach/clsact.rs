//! Attaches to TC by qdisc and filter, for kernels without TCX. A filter outlives its process. Our filters
//! are therefore recognisable (by name, and by a handle whose upper half is `HS`), and an abstract socket
//! shows whether a filter's agent is still running: it belongs to the network namespace, as the interface
//! does, and closes when its process ends.
//!
//! The qdisc stays after detaching: removing it would also remove filters that other programs have added
//! since.

use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use aya::programs::tc::{NlOptions, SchedClassifierLink, TcAttachOptions, qdisc_add_clsact};
use aya::programs::{Link as _, SchedClassifier, TcHandle};
use libc::{RTM_GETTFILTER, RTM_NEWTFILTER, TCA_KIND, TCA_OPTIONS};

use super::bpf::program;
use super::netlink::{Message, MessageBody, Netlink, ROUTE, Refusal, find, text, u16_at, u32_at};
use super::{Direction, InterfaceInfo, refusal, tc_errno};

/// Size of `struct tcmsg`, bytes.
const HEADER: usize = 20;
/// `TC_H_CLSACT` with `TC_H_MIN_INGRESS` or `TC_H_MIN_EGRESS`.
const INGRESS_PARENT: u32 = 0xffff_fff2;
const EGRESS_PARENT: u32 = 0xffff_fff3;
/// Attributes inside `TCA_OPTIONS` of a filter of kind `bpf`.
const BPF_NAME: u16 = 7;
const BPF_ID: u16 = 11;
/// The upper half of our handles: `HS` in ASCII.
const HANDLE_MAJOR: u16 = 0x4853;
/// How many agents can share one direction of an interface by clsact.
const AGENTS: u16 = 64;

/// A filter of a clsact qdisc.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClsactFilter {
    /// The direction whose packets it sees.
    pub direction: Direction,
    /// Its priority: filters with a lower one run first.
    pub priority: u16,
    /// Its handle, unique within the priority; 0 is the entry of the priority itself.
    pub handle: u32,
    /// The EtherType it matches, in network byte order as the kernel stores it.
    protocol_be: u16,
    kind: String,
    /// The name that its owner gave it; empty unless it is a BPF filter.
    pub name: String,
    /// The id of its program; `None` unless it is a BPF filter.
    pub program: Option<u32>,
}

impl ClsactFilter {
    fn is_ours(&self) -> bool {
        self.name == self.direction.classifier() && self.handle >> 16 == u32::from(HANDLE_MAJOR)
    }

    /// Whether our filter may share its priority: the kernel allows one kind and one protocol per priority.
    fn may_share(&self) -> bool {
        self.kind == "bpf" && self.protocol_be == protocol_all()
    }
}

fn protocol_all() -> u16 {
    u16::try_from(libc::ETH_P_ALL).unwrap_or_default().to_be()
}

/// Keeps a filter of ours attached. Dropping it removes the filter first, then releases the claim on its
/// handle.
#[derive(Debug)]
pub(super) struct Attachment {
    _link: SchedClassifierLink,
    _claim: UnixDatagram,
}

#[cfg(any(test, feature = "testing"))]
impl Attachment {
    /// Ends as a killed process does: the claim is released, and the filter stays.
    pub(super) fn kill(self) {
        std::mem::forget(self._link);
    }
}

/// Attaches `program` ahead of as many other filters as the kernel allows.
pub(super) fn attach(
    program: &mut SchedClassifier,
    info: &InterfaceInfo,
    direction: Direction,
) -> Result<Attachment, Refusal> {
    if let Err(error) = qdisc_add_clsact(&info.name) {
        let errno = tc_errno(&error).unwrap_or(libc::EIO);
        if errno != libc::EEXIST {
            return Err(Refusal { errno, words: Some(error.to_string()) });
        }
    }
    let (minor, claim) = claim_any(info.index, direction)?;
    let handle = TcHandle::new(HANDLE_MAJOR, minor);
    let priority = free_priority(&filters(info.index, direction)?);
    let options = TcAttachOptions::Netlink(NlOptions { priority, handle, classid: None });
    let link =
        program.attach_with_options(&info.name, direction.tc(), options).and_then(|id| program.take_link(id));
    match link {
        Ok(link) => Ok(Attachment { _link: link, _claim: claim }),
        Err(error) => Err(Refusal { words: Some(error.to_string()), ..refusal(&error) }),
    }
}

/// The lowest priority where no filter conflicts with ours.
fn free_priority(filters: &[ClsactFilter]) -> u16 {
    let open = |priority: &u16| filters.iter().all(|f| f.priority != *priority || f.may_share());
    (1..u16::MAX).find(open).unwrap_or(u16::MAX)
}

/// The filters that run before the one with program id `ours`.
pub(super) fn before_ours(index: u32, direction: Direction, ours: u32) -> Vec<String> {
    let all = filters(index, direction).unwrap_or_default();
    let ahead = all.iter().filter(|f| f.handle != 0).take_while(|f| f.program != Some(ours));
    let mut names: Vec<_> = ahead.map(|f| format!("{f} on clsact {direction}")).collect();
    // One filter of kind u32 is listed as several nodes.
    names.dedup();
    names
}

impl std::fmt::Display for ClsactFilter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.program {
            Some(id) => write!(f, "{}", program(id)),
            None => write!(f, "a filter of kind {}", self.kind),
        }
    }
}

/// Removes the filters that a killed agent left on this interface. Returns one sentence per filter.
pub(super) fn remove_stale(info: &InterfaceInfo) -> Vec<String> {
    let remove = |filter: &ClsactFilter| {
        let (major, minor) = (HANDLE_MAJOR, u16::try_from(filter.handle & 0xffff).unwrap_or_default());
        let handle = TcHandle::new(major, minor);
        SchedClassifierLink::attached(&info.name, filter.direction.tc(), filter.priority, handle, None)
            .map_err(|error| error.to_string())
            .and_then(|link| link.detach().map_err(|error| error.to_string()))
    };
    let sentence = |filter: ClsactFilter| match remove(&filter) {
        Ok(()) => {
            format!("{}: removed the {} filter of an agent that was killed", info.name, filter.direction)
        }
        Err(error) => {
            format!("{}: cannot remove a killed agent's {} filter: {error}", info.name, filter.direction)
        }
    };
    stale(info.index).into_iter().map(sentence).collect()
}

/// Our filters whose agent is no longer running.
pub fn stale(index: u32) -> Vec<ClsactFilter> {
    let of = |direction| filters(index, direction).unwrap_or_default();
    let ours = of(Direction::Ingress).into_iter().chain(of(Direction::Egress)).filter(ClsactFilter::is_ours);
    ours.filter(|filter| claim(index, filter.direction, filter.handle).is_ok()).collect()
}

/// The shell command that removes a filter.
pub fn removal_command(interface: &str, filter: &ClsactFilter) -> String {
    let ClsactFilter { direction, priority, handle, .. } = filter;
    format!("tc filter del dev {interface} {direction} prio {priority} handle {handle:#x} bpf")
}

/// Claims a handle that no running agent has.
fn claim_any(index: u32, direction: Direction) -> io::Result<(u16, UnixDatagram)> {
    let try_minor = |minor| {
        let handle = u32::from(HANDLE_MAJOR) << 16 | u32::from(minor);
        claim(index, direction, handle).ok().map(|claim| (minor, claim))
    };
    (1..=AGENTS).find_map(try_minor).ok_or_else(|| io::Error::from_raw_os_error(libc::EBUSY))
}

/// Claims a handle until the socket closes. Fails while a running agent has it.
fn claim(index: u32, direction: Direction, handle: u32) -> io::Result<UnixDatagram> {
    let address = SocketAddr::from_abstract_name(format!("handshake/clsact/{index}/{direction}/{handle:x}"))?;
    UnixDatagram::bind_addr(&address)
}

/// Reads the filters of one direction, in the order they run.
///
/// # Errors
///
/// The refusal, with the kernel's reason.
pub fn filters(index: u32, direction: Direction) -> Result<Vec<ClsactFilter>, Refusal> {
    let parent = match direction {
        Direction::Ingress => INGRESS_PARENT,
        Direction::Egress => EGRESS_PARENT,
    };
    let mut header = [0; HEADER];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[12..16].copy_from_slice(&parent.to_ne_bytes());
    let mut netlink = Netlink::open(ROUTE)?;
    let answers = netlink.dump(RTM_GETTFILTER, MessageBody::new(&header).bytes())?;
    Ok(answers.iter().filter_map(|message| parse(message, direction)).collect())
}

fn parse(message: &Message, direction: Direction) -> Option<ClsactFilter> {
    let (handle, info) = (u32_at(&message.body, 8)?, u32_at(&message.body, 16)?);
    let attributes = message.body.get(HEADER..).filter(|_| message.kind == RTM_NEWTFILTER)?;
    let kind = find(attributes, TCA_KIND).map(text)?;
    // The numbers of the options differ from kind to kind.
    let options = find(attributes, TCA_OPTIONS).filter(|_| kind == "bpf").unwrap_or_default();
    // `tcm_info` holds the priority in the upper half and the protocol in the lower.
    let info = info.to_ne_bytes();
    let (low, high) = (u16_at(&info, 0)?, u16_at(&info, 2)?);
    let (protocol_be, priority) = if cfg!(target_endian = "little") { (low, high) } else { (high, low) };
    Some(ClsactFilter {
        direction,
        priority,
        handle,
        protocol_be,
        kind,
        name: find(options, BPF_NAME).map(text).unwrap_or_default(),
        program: find(options, BPF_ID).and_then(|id| u32_at(id, 0)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(priority: u16, kind: &str, protocol_be: u16) -> ClsactFilter {
        let (direction, name) = (Direction::Ingress, "theirs".into());
        ClsactFilter { direction, priority, handle: 1, protocol_be, kind: kind.into(), name, program: None }
    }

    #[test]
    fn the_lowest_priority_without_a_conflict_is_chosen() {
        let all = protocol_all();
        let table: [(&[ClsactFilter], u16); 4] = [
            (&[], 1),
            (&[filter(1, "bpf", all)], 1),
            (&[filter(1, "u32", all), filter(2, "bpf", 8), filter(9, "u32", all)], 3),
            (&[filter(2, "u32", all)], 1),
        ];
        for (filters, expected) in table {
            assert_eq!(free_priority(filters), expected, "{filters:?}");
        }
    }

    #[test]
    fn a_filter_is_ours_by_its_name_and_its_handle() {
        let named = |name: &str, handle| ClsactFilter {
            name: name.into(),
            handle,
            ..filter(1, "bpf", protocol_all())
        };
        assert!(named("handshake_ingress", 0x4853_0001).is_ours());
        assert!(!named("handshake_ingress", 1).is_ours());
        assert!(!named("handshake_egress", 0x4853_0001).is_ours());
        assert!(!named("theirs", 0x4853_0001).is_ours());
    }

    #[test]
    fn a_claim_is_released_when_its_socket_closes() {
        let (minor, held) = claim_any(u32::MAX, Direction::Egress).expect("there are handles");
        let handle = u32::from(HANDLE_MAJOR) << 16 | u32::from(minor);
        assert!(claim(u32::MAX, Direction::Egress, handle).is_err());
        drop(held);
        assert!(claim(u32::MAX, Direction::Egress, handle).is_ok());
    }
}
