//! Attaches to TC by qdisc and filter, for kernels without TCX. A filter outlives its process. Our filters
//! are therefore recognisable (by name, and by a handle whose upper half is `HS`), and a claim shows whether
//! a filter's agent is still running.
//!
//! The qdisc stays after detaching: removing it would also remove filters that other programs have added
//! since.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::time::Instant;

use libc::{
    NLM_F_CREATE, NLM_F_EXCL, RTM_DELTFILTER, RTM_GETQDISC, RTM_GETTFILTER, RTM_NEWQDISC, RTM_NEWTFILTER,
    TCA_KIND, TCA_OPTIONS,
};

use super::bpf::{program, tcx_chain};
use super::claim::{self, is_of_an_agent};
use super::interface::InterfaceInfo;
use super::watch::{BETWEEN_MOVES, Guard, unanswered};
use crate::hook::{Direction, HookState};
use crate::netlink::{Message, MessageBody, Netlink, ROUTE, Refusal, find, text, u16_at, u32_at};

/// Size of `struct tcmsg`, bytes.
const HEADER: usize = 20;
/// `TC_H_CLSACT` with `TC_H_MIN_INGRESS` or `TC_H_MIN_EGRESS`.
const INGRESS_PARENT: u32 = 0xffff_fff2;
const EGRESS_PARENT: u32 = 0xffff_fff3;
/// Attributes inside `TCA_OPTIONS` of a filter of kind `bpf`.
const BPF_FD: u16 = 6;
const BPF_NAME: u16 = 7;
const BPF_FLAGS: u16 = 8;
const BPF_ID: u16 = 11;
/// `TCA_BPF_FLAG_ACT_DIRECT`: the program's result is the verdict.
const ACT_DIRECT: u32 = 1;
/// `TC_H_CLSACT`, and the qdisc's handle.
const CLSACT: u32 = 0xffff_fff1;
const CLSACT_HANDLE: u32 = 0xffff_0000;
/// The words of a refusal that has a remedy.
const INGRESS_QDISC: &str = "an `ingress` qdisc is in the place of clsact";
/// The upper half of our handles: `HS` in ASCII.
const HANDLE_MAJOR: u32 = 0x4853;
/// How many agents can share one direction of an interface by clsact.
const AGENTS: u32 = 64;

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
        self.name == self.direction.classifier() && self.handle >> 16 == HANDLE_MAJOR
    }

    const fn place(&self) -> FilterPlace {
        FilterPlace { priority: self.priority, handle: self.handle }
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
pub(super) struct ClsactGuard {
    program: Arc<OwnedFd>,
    id: u32,
    index: u32,
    direction: Direction,
    place: FilterPlace,
    /// The programs and filters that were before ours when it was attached.
    known: Ahead,
    moved: Option<Instant>,
    _claim: UnixDatagram,
}

/// What the kernel knows a filter by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FilterPlace {
    priority: u16,
    handle: u32,
}

/// What sees the packets of one direction before our filter.
#[derive(Debug, Default)]
struct Ahead {
    tcx: Vec<u32>,
    filters: Vec<FilterPlace>,
}

impl ClsactGuard {
    /// Attaches the program with this id ahead of as many other filters as the kernel allows.
    pub(super) fn attach(
        program: Arc<OwnedFd>,
        id: u32,
        index: u32,
        direction: Direction,
    ) -> Result<Self, Refusal> {
        let mut netlink = Netlink::open(ROUTE)?;
        add_qdisc(&mut netlink, index)?;
        let (handle, claim) = claim_any(index, direction)?;
        let (place, known) = (FilterPlace { priority: 0, handle }, Ahead::default());
        let mut guard = Self { program, id, index, direction, place, known, moved: None, _claim: claim };
        guard.add(&mut netlink)?;
        Ok(guard)
    }

    fn add(&mut self, netlink: &mut Netlink) -> Result<(), Refusal> {
        self.place.priority = free_priority(&read(netlink, self.index, self.direction)?);
        let header = header(self.index, self.direction, self.place);
        let name = format!("{}\0", self.direction.classifier());
        let options = MessageBody::default()
            .with(BPF_FD, &self.program.as_raw_fd().to_ne_bytes())
            .with(BPF_NAME, name.as_bytes())
            .with(BPF_FLAGS, &ACT_DIRECT.to_ne_bytes());
        let body = MessageBody::new(&header).with(TCA_KIND, b"bpf\0").nest(TCA_OPTIONS, &options);
        netlink.request(RTM_NEWTFILTER, NLM_F_CREATE | NLM_F_EXCL, body.bytes())?;
        self.known = self.ahead(&read(netlink, self.index, self.direction)?);
        Ok(())
    }

    fn ahead(&self, filters: &[ClsactFilter]) -> Ahead {
        let before = filters.iter().filter(|f| f.handle != 0).take_while(|f| !self.is(f));
        Ahead {
            tcx: tcx_chain(self.index, self.direction).unwrap_or_default(),
            filters: before.map(ClsactFilter::place).collect(),
        }
    }

    fn is(&self, filter: &ClsactFilter) -> bool {
        filter.place() == self.place && filter.program == Some(self.id)
    }

    /// The names of what came before our filter since it was attached.
    fn newcomers(&self, filters: &[ClsactFilter]) -> Vec<String> {
        let now = self.ahead(filters);
        let tcx = now.tcx.iter().filter(|id| !self.known.tcx.contains(id)).map(|id| program(*id));
        let mut names: Vec<String> =
            tcx.filter(|program| !is_of_an_agent(program)).map(|program| program.to_string()).collect();
        let is_new = |f: &&ClsactFilter| {
            now.filters.contains(&f.place()) && !self.known.filters.contains(&f.place()) && !f.is_ours()
        };
        names.extend(filters.iter().filter(is_new).map(ToString::to_string));
        names.dedup();
        names
    }
}

impl Guard for ClsactGuard {
    fn look(&mut self, _: &InterfaceInfo, netlink: &mut Netlink) -> HookState {
        let filters = match read(netlink, self.index, self.direction) {
            Ok(filters) => filters,
            Err(refusal) => return unanswered(&refusal.into()),
        };
        if !filters.iter().any(|filter| self.is(filter)) {
            return HookState::Gone;
        }
        let newcomers = self.newcomers(&filters);
        if newcomers.is_empty() { HookState::Ours } else { HookState::Behind(newcomers) }
    }

    fn is_detached(&self) -> bool {
        let filters = filters(self.index, self.direction);
        filters.is_ok_and(|filters| !filters.iter().any(|filter| self.is(filter)))
    }

    fn may_move(&self) -> bool {
        self.moved.is_none_or(|moved| moved.elapsed() >= BETWEEN_MOVES)
    }

    /// Attaches again, with what cannot be passed still counted as new.
    fn attach_again(&mut self, netlink: &mut Netlink) -> Result<(), Refusal> {
        let before = read(netlink, self.index, self.direction)?;
        if before.iter().any(|filter| self.is(filter)) {
            self.moved = Some(Instant::now());
            remove(netlink, self.index, self.direction, self.place)?;
        }
        add_qdisc(netlink, self.index)?;
        let known = std::mem::take(&mut self.known);
        let added = self.add(netlink);
        self.known = known;
        added?;
        let newcomers = self.newcomers(&read(netlink, self.index, self.direction)?);
        if newcomers.is_empty() {
            return Ok(());
        }
        let words = format!("{} stays before it", newcomers.join(", "));
        Err(Refusal { errno: libc::EBUSY, words: Some(words) })
    }
}

impl Drop for ClsactGuard {
    fn drop(&mut self) {
        if let Ok(mut netlink) = Netlink::open(ROUTE) {
            remove(&mut netlink, self.index, self.direction, self.place).ok();
        }
    }
}

#[cfg(any(test, feature = "testing"))]
impl ClsactGuard {
    /// Ends as a killed process does: the claim is released, and the filter stays.
    pub(super) fn kill(mut self) {
        // No interface has this index.
        self.index = u32::MAX;
    }
}

/// Adds the clsact qdisc, unless it is there.
fn add_qdisc(netlink: &mut Netlink, index: u32) -> Result<(), Refusal> {
    let mut header = [0; HEADER];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&CLSACT_HANDLE.to_ne_bytes());
    header[12..16].copy_from_slice(&CLSACT.to_ne_bytes());
    let body = MessageBody::new(&header).with(TCA_KIND, b"clsact\0");
    match netlink.request(RTM_NEWQDISC, NLM_F_CREATE | NLM_F_EXCL, body.bytes()) {
        Err(refusal) if refusal.errno != libc::EEXIST => Err(refusal),
        Err(refusal) if has_ingress_qdisc(netlink, index)? => {
            Err(Refusal { words: Some(INGRESS_QDISC.to_owned()), ..refusal })
        }
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Whether attaching was refused because of an `ingress` qdisc, which can be removed.
pub(super) fn is_by_ingress_qdisc(refusal: &Refusal) -> bool {
    refusal.words.as_deref() == Some(INGRESS_QDISC)
}

/// Whether this interface has an `ingress` qdisc in the place of clsact. False if it cannot be asked.
pub fn is_taken_by_ingress(index: u32) -> bool {
    Netlink::open(ROUTE)
        .map_err(Refusal::from)
        .and_then(|mut netlink| has_ingress_qdisc(&mut netlink, index))
        .unwrap_or(false)
}

/// What to do about an `ingress` qdisc where clsact is wanted.
pub fn ingress_qdisc_fix(interface: &str, has_tcx: bool) -> String {
    let instead = if has_tcx {
        "use --hook tcx"
    } else {
        "watch incoming packets alone (--hook xdp-generic --direction ingress)"
    };
    format!("remove it (tc qdisc del dev {interface} ingress; its filters go too), or {instead}")
}

/// Whether an `ingress` qdisc has clsact's handle: it has filters for one direction only.
fn has_ingress_qdisc(netlink: &mut Netlink, index: u32) -> Result<bool, Refusal> {
    let mut header = [0; HEADER];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    let qdiscs = netlink.dump(RTM_GETQDISC, &header)?;
    Ok(qdiscs.iter().any(|qdisc| {
        let body = qdisc.body.as_slice();
        let kind = body.get(HEADER..).and_then(|attributes| find(attributes, TCA_KIND)).map(text);
        u32_at(body, 4) == Some(index) && kind.as_deref() == Some("ingress")
    }))
}

fn remove(
    netlink: &mut Netlink,
    index: u32,
    direction: Direction,
    place: FilterPlace,
) -> Result<(), Refusal> {
    let body = MessageBody::new(&header(index, direction, place)).with(TCA_KIND, b"bpf\0");
    netlink.request(RTM_DELTFILTER, 0, body.bytes()).map(|_| ())
}

/// `struct tcmsg` of a filter.
fn header(index: u32, direction: Direction, place: FilterPlace) -> [u8; HEADER] {
    let parent = match direction {
        Direction::Ingress => INGRESS_PARENT,
        Direction::Egress => EGRESS_PARENT,
    };
    let info = u32::from(place.priority) << 16 | u32::from(protocol_all());
    let mut header = [0; HEADER];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&place.handle.to_ne_bytes());
    header[12..16].copy_from_slice(&parent.to_ne_bytes());
    header[16..20].copy_from_slice(&info.to_ne_bytes());
    header
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
        remove(&mut Netlink::open(ROUTE)?, info.index, filter.direction, filter.place())
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
    ours.filter(|filter| claim::handle(index, filter.direction, filter.handle).is_ok()).collect()
}

/// The shell command that removes a filter.
pub fn removal_command(interface: &str, filter: &ClsactFilter) -> String {
    let ClsactFilter { direction, priority, handle, .. } = filter;
    format!("tc filter del dev {interface} {direction} prio {priority} handle {handle:#x} bpf")
}

/// Claims a handle that no running agent has.
fn claim_any(index: u32, direction: Direction) -> io::Result<(u32, UnixDatagram)> {
    let try_minor = |minor| {
        let handle = HANDLE_MAJOR << 16 | minor;
        claim::handle(index, direction, handle).ok().map(|claim| (handle, claim))
    };
    (1..=AGENTS).find_map(try_minor).ok_or_else(|| io::Error::from_raw_os_error(libc::EBUSY))
}

/// Reads the filters of one direction, in the order they run.
///
/// # Errors
///
/// The refusal, with the kernel's reason.
pub fn filters(index: u32, direction: Direction) -> Result<Vec<ClsactFilter>, Refusal> {
    read(&mut Netlink::open(ROUTE)?, index, direction)
}

fn read(netlink: &mut Netlink, index: u32, direction: Direction) -> Result<Vec<ClsactFilter>, Refusal> {
    let all = FilterPlace { priority: 0, handle: 0 };
    let mut header = header(index, direction, all);
    header[16..20].fill(0);
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
        let (handle, held) = claim_any(u32::MAX, Direction::Egress).expect("there are handles");
        assert!(claim::handle(u32::MAX, Direction::Egress, handle).is_err());
        drop(held);
        assert!(claim::handle(u32::MAX, Direction::Egress, handle).is_ok());
    }
}
