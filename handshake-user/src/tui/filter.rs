//! The filter of the lists: words that a flow must all match. Pure.
//!
//! ```text
//! port:443 verdict:half_open 10.0.0.0/8 eth
//! ```
//!
//! Words about numbers are cheap enough to be checked for every record while the tables are read. Plain text
//! is searched in the kept records only.

use std::net::SocketAddr;

use handshake_agent::address::{Cidr, PortRange};
use handshake_agent::model::snapshot::ServiceBooks;
use handshake_agent::owner::Owner;
use handshake_agent::source::Moment;
use handshake_common::abi::Net;
use handshake_common::flow::{Address, Side};
use handshake_common::record::Record;
use handshake_common::verdict::{Assessment, Cause, FlowFlag, UdpVerdict, Verdict};

use super::owners::Owners;
use super::service::ServiceLine;
use crate::duration::duration;
use crate::names;
use handshake_agent::model::flow::Flow;

/// The word for what failed.
const FAILURES: &str = "failures";

/// A filter of flows and services; the empty one admits everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ListFilter {
    /// The text as typed.
    pub(crate) text: String,
    terms: Vec<FilterTerm>,
}

/// One word of a filter.
#[derive(Clone, Debug, PartialEq, Eq)]
enum FilterTerm {
    /// `port:443`, `port:8000-8100`, at either end.
    Port(PortRange),
    /// `10.0.0.0/8`, `2001:db8::1`, at either end.
    Net(Net),
    /// `10.0.0.2:443`, at either end.
    Socket { address: Net, port: u16 },
    /// `verdict:half_open`: a verdict of TCP or UDP by name.
    Verdict(&'static str),
    /// `cause:no_ack`.
    Cause(Cause),
    /// `tcp` and `udp`.
    Udp(bool),
    /// `client:10.20.7.0/24`: the initiator's address.
    Client(Net),
    /// `connect>1s`: the time to connect, of an open attempt its age so far.
    Connect { longer: bool, than_ns: u64 },
    /// `repeats>0`: SYNs and SYN+ACKs that were sent again.
    Repeats { more: bool, than: u16 },
    /// `silent`, `late`, `revised`: a flow's flag by name.
    Flag(FlowFlag),
    /// `unit:nginx.service`: whose one of the ends is, by the beginning of its name.
    Owner(OwnerPart, String),
    /// `failures`: half-open attempts, silent connections, and all that ended badly.
    Failures,
    /// Any other text, in lower case.
    Text(String),
}

/// A part of an owner that a word of a filter is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OwnerPart {
    /// The unit of systemd.
    Unit,
    /// The pod: its name, `namespace/name` or its UID.
    Pod,
    /// The container: its name or its id.
    Container,
    /// The path of the control group.
    Cgroup,
}

impl OwnerPart {
    const ALL: [Self; 4] = [Self::Unit, Self::Pod, Self::Container, Self::Cgroup];

    const fn name(self) -> &'static str {
        match self {
            Self::Unit => "unit",
            Self::Pod => "pod",
            Self::Container => "container",
            Self::Cgroup => "cgroup",
        }
    }

    /// Whether a name of the part begins like this.
    fn begins(self, owner: &Owner, beginning: &str) -> bool {
        let begins = |name: &String| name.starts_with(beginning);
        match self {
            Self::Unit => owner.unit.as_ref().is_some_and(begins),
            Self::Container => owner.container.as_ref().is_some_and(|container| {
                begins(&container.id) || container.name.as_ref().is_some_and(begins)
            }),
            Self::Pod => owner.pod.as_ref().is_some_and(|pod| {
                let named = pod.name.as_ref().is_some_and(|pod| {
                    begins(&pod.name) || begins(&format!("{}/{}", pod.namespace, pod.name))
                });
                named || begins(&pod.uid)
            }),
            Self::Cgroup => begins(&owner.cgroup),
        }
    }
}

impl ListFilter {
    /// Parses the typed text.
    ///
    /// # Errors
    ///
    /// The wrong word, and what is valid instead.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let terms = text.split_whitespace().map(term).collect::<Result<_, _>>()?;
        Ok(Self { text: text.trim().to_owned(), terms })
    }

    /// The filter for one service.
    pub(crate) fn of_service(service: SocketAddr, udp: bool) -> Self {
        let text = format!("{} {service}", if udp { "udp" } else { "tcp" });
        Self { text, terms: vec![FilterTerm::Udp(udp), socket(service)] }
    }

    /// Whether the filter admits everything.
    pub(crate) const fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }

    /// The filter for what failed, of one service or of all.
    pub(crate) fn of_failures(service: Option<SocketAddr>) -> Self {
        let all = service.map_or_else(Self::default, |service| Self::of_service(service, false));
        all.with_failures(true)
    }

    /// The same filter with `failures`, or without.
    pub(crate) fn with_failures(&self, wanted: bool) -> Self {
        let words = self.text.split_whitespace().filter(|word| *word != FAILURES);
        let words: Vec<&str> = words.chain(wanted.then_some(FAILURES)).collect();
        let terms = self.terms.iter().filter(|term| **term != FilterTerm::Failures).cloned();
        let terms = terms.chain(wanted.then_some(FilterTerm::Failures)).collect();
        Self { text: words.join(" "), terms }
    }

    /// The same filter for the clients of a network alone.
    pub(crate) fn with_client(&self, network: Cidr) -> Self {
        let text = format!("{} client:{network}", self.text).trim().to_owned();
        let terms = self.terms.iter().cloned().chain([FilterTerm::Client(network.net())]).collect();
        Self { text, terms }
    }

    /// Whether it admits failures alone.
    pub(crate) fn wants_failures(&self) -> bool {
        self.terms.contains(&FilterTerm::Failures)
    }

    /// Whether the filter has plain text, which is not searched in every record.
    pub(crate) fn has_text(&self) -> bool {
        self.terms.iter().any(|term| matches!(term, FilterTerm::Text(_)))
    }

    /// Whether a record matches all words except plain text.
    pub(crate) fn admits_record(&self, record: &Record, moment: &Moment, owners: &Owners) -> bool {
        self.terms.iter().all(|term| match term {
            FilterTerm::Port(range) => {
                ports(record).iter().any(|port| (range.first..=range.last).contains(port))
            }
            FilterTerm::Net(net) => ends(record).iter().any(|(address, _)| is_in(net, *address, record)),
            FilterTerm::Socket { address, port } => {
                ends(record).iter().any(|(at, its)| its == port && is_in(address, *at, record))
            }
            FilterTerm::Verdict(name) => Flow::of(*record).standing(moment).name() == *name,
            FilterTerm::Cause(cause) => record.state.is_open() && record.state.cause() == *cause,
            FilterTerm::Udp(udp) => record.key.udp == *udp,
            FilterTerm::Client(net) => is_in(net, record.end(Side::Initiator).0, record),
            FilterTerm::Connect { longer, than_ns } => {
                let flow = Flow::of(*record);
                let waits = flow.is_open().then(|| record.age_ns(moment.now));
                flow.connect_ns().or(waits).is_some_and(|ns| is_beyond(*longer, ns, *than_ns))
            }
            FilterTerm::Repeats { more, than } => {
                is_beyond(*more, Flow::of(*record).retransmits().into(), u64::from(*than))
            }
            FilterTerm::Flag(flag) => has_flag(&Flow::of(*record), *flag, moment),
            FilterTerm::Failures => is_failure(&Flow::of(*record), moment),
            FilterTerm::Owner(part, beginning) => is_of(owners, record, *part, beginning),
            FilterTerm::Text(_) => true,
        })
    }

    /// Whether an attempt matches all words. `interface` is where it was first seen; without it, plain text
    /// is not checked, and an owner that is not known yet may be any.
    pub(crate) fn admits(
        &self,
        attempt: &Flow,
        moment: &Moment,
        interface: Option<&str>,
        owners: &Owners,
    ) -> bool {
        self.terms.iter().all(|term| match term {
            FilterTerm::Verdict(name) => attempt.standing(moment).name() == *name,
            FilterTerm::Flag(flag) => has_flag(attempt, *flag, moment),
            FilterTerm::Failures => is_failure(attempt, moment),
            FilterTerm::Cause(cause) => attempt.cause(attempt.standing(moment)) == Some(*cause),
            FilterTerm::Text(text) => interface.is_none_or(|interface| {
                let standing = attempt.standing(moment);
                let cause = attempt.cause(standing).map_or("", Cause::name);
                let [from, to] = Side::BOTH.map(|side| attempt.end(side));
                let [whose, and_whose] = Side::BOTH
                    .map(|side| names::whose(attempt, side, owners.of(&attempt.record, side).as_deref()));
                let shown =
                    format!("{from} {to} {} {cause} {interface} {whose} {and_whose}", standing.name());
                shown.to_lowercase().contains(text)
            }),
            FilterTerm::Owner(part, beginning) => {
                let is_unsure = interface.is_none() && owners.may_know_more(&attempt.record);
                is_unsure || is_of(owners, &attempt.record, *part, beginning)
            }
            // An attempt that has ended does not wait any more.
            FilterTerm::Connect { .. } if attempt.ended.is_some() && attempt.connect_ns().is_none() => false,
            FilterTerm::Port(_)
            | FilterTerm::Net(_)
            | FilterTerm::Socket { .. }
            | FilterTerm::Udp(_)
            | FilterTerm::Client(_)
            | FilterTerm::Connect { .. }
            | FilterTerm::Repeats { .. } => {
                let one = Self { text: String::new(), terms: vec![term.clone()] };
                one.admits_record(&attempt.record, moment, owners)
            }
        })
    }

    /// Whether a service matches all words. A verdict matches if any flow of the service has it; what only
    /// attempts have selects no service.
    pub(crate) fn admits_service(&self, line: &ServiceLine) -> bool {
        self.terms.iter().all(|term| match term {
            FilterTerm::Port(range) => {
                line.service.is_some_and(|at| (range.first..=range.last).contains(&at.port()))
            }
            FilterTerm::Net(net) => line.service.is_some_and(|at| is_within(net, at)),
            FilterTerm::Socket { address, port } => {
                line.service.is_some_and(|at| at.port() == *port && is_within(address, at))
            }
            FilterTerm::Verdict(name) => has_verdict(&line.books, name),
            FilterTerm::Cause(cause) => match &line.books {
                ServiceBooks::Tcp(books) => books.by_cause(Verdict::HalfOpen).of(*cause) != 0,
                ServiceBooks::Udp(_) => false,
            },
            FilterTerm::Udp(udp) => matches!(line.books, ServiceBooks::Udp(_)) == *udp,
            FilterTerm::Failures => line.has_failures(),
            FilterTerm::Flag(FlowFlag::Silent) => line.silent() != 0,
            // Of attempts alone.
            FilterTerm::Client(_)
            | FilterTerm::Owner(..)
            | FilterTerm::Connect { .. }
            | FilterTerm::Repeats { .. }
            | FilterTerm::Flag(
                FlowFlag::Late
                | FlowFlag::FastOpen
                | FlowFlag::Simultaneous
                | FlowFlag::OneSided
                | FlowFlag::Revised,
            ) => true,
            FilterTerm::Text(text) => line.name().contains(text.as_str()),
        })
    }
}

fn term(word: &str) -> Result<FilterTerm, String> {
    if let Ok(address) = word.parse::<SocketAddr>() {
        return Ok(socket(address));
    }
    if let Ok(net) = word.parse::<Cidr>() {
        return Ok(FilterTerm::Net(net.net()));
    }
    if let Some(compared) = compared(word) {
        return compared;
    }
    match word.split_once(':') {
        Some(("client", value)) => value.parse::<Cidr>().map(|net| FilterTerm::Client(net.net())),
        Some(("port", value)) => value.parse().map(FilterTerm::Port),
        Some(("verdict", value)) => verdict(value),
        Some(("cause", value)) => cause(value),
        Some(("net", value)) => value.parse::<Cidr>().map(|net| FilterTerm::Net(net.net())),
        Some((key, value)) => owner(key, value),
        None if word == FAILURES => Ok(FilterTerm::Failures),
        None if word == "tcp" || word == "udp" => Ok(FilterTerm::Udp(word == "udp")),
        None => Ok(flag(word).map_or_else(|| FilterTerm::Text(word.to_lowercase()), FilterTerm::Flag)),
    }
}

/// A word about owners.
fn owner(key: &str, value: &str) -> Result<FilterTerm, String> {
    let part = OwnerPart::ALL.into_iter().find(|part| part.name() == key);
    let known = "port:, verdict:, cause:, client:, net:, unit:, pod:, container: or cgroup:";
    part.map(|part| FilterTerm::Owner(part, value.to_owned()))
        .ok_or_else(|| format!("unknown '{key}:': {known}"))
}

/// Whether one of the ends is an owner's whose name begins like this.
fn is_of(owners: &Owners, record: &Record, part: OwnerPart, beginning: &str) -> bool {
    Side::BOTH
        .into_iter()
        .any(|side| owners.of(record, side).is_some_and(|owner| part.begins(&owner, beginning)))
}

fn flag(word: &str) -> Option<FlowFlag> {
    FlowFlag::ALL.into_iter().find(|flag| flag.name() == word)
}

/// A word with a comparison; `None` of any other word.
fn compared(word: &str) -> Option<Result<FilterTerm, String>> {
    let at = word.find(['<', '>'])?;
    let (name, is_more, value) = (&word[..at], word[at..].starts_with('>'), &word[at + 1..]);
    Some(match name {
        "connect" => duration(value).map(|time| FilterTerm::Connect {
            longer: is_more,
            than_ns: u64::try_from(time.as_nanos()).unwrap_or(u64::MAX),
        }),
        "repeats" => value
            .parse()
            .map(|than| FilterTerm::Repeats { more: is_more, than })
            .map_err(|_| format!("'{value}' is not a number such as 0 or 3")),
        name => Err(format!("'{name}' cannot be compared: use connect>1s or repeats>0")),
    })
}

const fn is_beyond(more: bool, value: u64, than: u64) -> bool {
    if more { value > than } else { value < than }
}

/// Whether a flow failed: a connection without an answer is completed, and serves no one.
pub(crate) fn is_failure(flow: &Flow, moment: &Moment) -> bool {
    flow.standing(moment).assessment() == Assessment::Bad || flow.is_silent(moment)
}

fn has_flag(flow: &Flow, flag: FlowFlag, moment: &Moment) -> bool {
    flow.flags(moment).any(|each| each == flag)
}

fn socket(socket: SocketAddr) -> FilterTerm {
    let (address, family) = Address::of(socket.ip());
    let address = Net { address, mask: Address([u64::MAX; 2]), family: family as u64 };
    FilterTerm::Socket { address, port: socket.port() }
}

fn verdict(name: &str) -> Result<FilterTerm, String> {
    let all = Verdict::ALL.map(Verdict::name).into_iter().chain(UdpVerdict::ALL.map(UdpVerdict::name));
    let found = all.into_iter().find(|each| *each == name);
    found
        .map(FilterTerm::Verdict)
        .ok_or_else(|| format!("'{name}' is not a verdict such as half_open or refused"))
}

fn cause(name: &str) -> Result<FilterTerm, String> {
    let found = Cause::ALL.into_iter().find(|cause| cause.name() == name);
    found
        .map(FilterTerm::Cause)
        .ok_or_else(|| format!("'{name}' is not a cause: use no_syn_ack, no_ack or answer_unseen"))
}

fn ends(record: &Record) -> [(Address, u16); 2] {
    [record.end(Side::Initiator), record.end(Side::Responder)]
}

fn ports(record: &Record) -> [u16; 2] {
    ends(record).map(|(_, port)| port)
}

fn is_in(net: &Net, address: Address, record: &Record) -> bool {
    net.family == record.family as u64 && matches(net, address)
}

fn is_within(net: &Net, socket: SocketAddr) -> bool {
    let (address, family) = Address::of(socket.ip());
    net.family == family as u64 && matches(net, address)
}

fn matches(net: &Net, Address(address): Address) -> bool {
    (0..2).all(|word| (address[word] ^ net.address.0[word]) & net.mask.0[word] == 0)
}

fn has_verdict(books: &ServiceBooks, name: &str) -> bool {
    match books {
        ServiceBooks::Tcp(books) => {
            Verdict::ALL.iter().any(|verdict| verdict.name() == name && books.verdict(*verdict) != 0)
        }
        ServiceBooks::Udp(books) => {
            UdpVerdict::ALL.iter().any(|verdict| verdict.name() == name && books.verdict(*verdict) != 0)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use handshake_agent::fake::{Fake, record, tcp, ticks, udp_record};
    use handshake_agent::source::Moment;
    use handshake_agent::source::Source as _;
    use handshake_common::abi::{TcpRecord, tag};
    use handshake_common::record::{Detail, State};
    use handshake_common::verdict::{Cause, FlowFlag};

    use super::{FilterTerm, ListFilter, OwnerPart, Owners};
    use crate::testing::{TERMINAL, firsts};
    use handshake_agent::model::flow::Flow;

    /// A filter, and the indices of the flows below that it admits.
    const TABLE: [(&str, &[usize]); 33] = [
        ("", &[0, 1, 2, 3]),
        ("  ", &[0, 1, 2, 3]),
        ("port:443", &[0, 1]),
        ("port:40000", &[0, 2]),
        ("port:50-60", &[3]),
        ("verdict:half_open", &[0]),
        ("verdict:completed", &[1]),
        ("verdict:unanswered", &[3]),
        ("cause:no_ack", &[0]),
        ("10.0.0.0/8", &[0, 3]),
        ("10.0.0.2", &[0, 3]),
        ("net:2001:db8::/32", &[1]),
        ("2001:db8::2", &[1]),
        ("10.0.0.2:443", &[0]),
        ("[2001:db8::2]:443", &[1]),
        ("udp", &[3]),
        ("tcp verdict:refused", &[2]),
        ("port:443 10.0.0.0/8", &[0]),
        ("DB8", &[1]),
        ("ETH0", &[0, 1, 2, 3]),
        ("client:10.0.0.1", &[0, 3]),
        ("client:10.0.0.2", &[]),
        ("client:2001:db8::/48", &[1]),
        ("failures", &[0, 2, 3]),
        ("connect>1s", &[0]),
        ("connect<1s", &[1]),
        ("repeats>0", &[1]),
        ("repeats>2", &[]),
        ("repeats<1", &[0, 2, 3]),
        ("fast_open", &[0]),
        ("tcp late", &[]),
        ("silent", &[]),
        ("unit:nginx.service", &[]),
    ];

    #[test]
    fn a_flow_must_match_every_word() {
        let mut all = [
            record("10.0.0.1:40000", "10.0.0.2:443", State::SynReceived),
            record("[2001:db8::1]:40001", "[2001:db8::2]:443", State::Established),
            record("192.0.2.1:40000", "192.0.2.2:22", State::Refused),
            udp_record("10.0.0.1:5000", "10.0.0.2:53", State::UdpWaiting),
        ];
        let repeated = TcpRecord {
            syn: 3,
            syn_ack_after: ticks(640_000),
            latest_after: ticks(1_280_000),
            ..tcp(&all[1])
        };
        all[1].detail = Detail::Tcp(repeated);
        all[0].flags |= tag::FAST_OPEN;
        let fake = Fake::new();
        let moment = Moment { now: fake.reading.now, stopped: false, clocks: without_expiry(&fake) };
        for (text, left) in TABLE {
            let filter = ListFilter::parse(text).expect(text);
            let owners = Owners::default();
            let fits = |at: &usize| filter.admits(&Flow::of(all[*at]), &moment, Some("eth0"), &owners);
            assert_eq!((0..all.len()).filter(fits).collect::<Vec<_>>(), left, "{text}");
            // The scan must not leave out what the list would show.
            let passes = |at: &usize| filter.admits_record(&all[*at], &moment, &owners);
            assert!(left.iter().all(passes), "{text}");
            assert_eq!(filter.is_empty(), text.trim().is_empty());
        }
    }

    /// The flows were opened at boot, 1000 s ago. Without a T2, they are half-open.
    fn without_expiry(fake: &Fake) -> handshake_common::record::Clocks {
        handshake_common::record::Clocks { expire_after_ns: u64::MAX, ..fake.clocks() }
    }

    /// Each word in docs/terminal.md parses as more than text, and each kind of word is documented.
    #[test]
    fn each_word_is_documented() {
        let words = firsts(TERMINAL, "filter word");
        let terms: Vec<FilterTerm> =
            words.iter().flat_map(|word| ListFilter::parse(word).expect(word).terms).collect();
        assert_eq!(terms.len(), words.len());
        let kind = |term: &FilterTerm| match term {
            FilterTerm::Port(_) => 0,
            FilterTerm::Net(_) => 1,
            FilterTerm::Socket { .. } => 2,
            FilterTerm::Verdict(_) => 3,
            FilterTerm::Cause(_) => 4,
            FilterTerm::Udp(_) => 5,
            FilterTerm::Client(_) => 6,
            FilterTerm::Connect { .. } => 7,
            FilterTerm::Repeats { .. } => 8,
            FilterTerm::Failures => 9,
            FilterTerm::Flag(_) => 10,
            FilterTerm::Owner(..) => 11,
            FilterTerm::Text(_) => 12,
        };
        let kinds: BTreeSet<usize> = terms.iter().map(kind).collect();
        assert_eq!(kinds, (0..12).collect(), "{words:?}");
        for part in OwnerPart::ALL {
            assert!(words.iter().any(|word| word.starts_with(&format!("{}:", part.name()))), "{part:?}");
        }
        for flag in FlowFlag::ALL {
            assert!(words.iter().any(|word| word == flag.name()), "{flag:?}");
        }
        for cause in Cause::ALL {
            assert!(words.contains(&format!("cause:{}", cause.name())), "{cause:?}");
        }
    }

    /// What a key adds reads as if it had been typed.
    #[test]
    fn words_that_keys_add_are_those_that_are_typed() {
        let typed = |text: &str| ListFilter::parse(text).expect(text);
        let filter = typed("port:443");
        assert_eq!(filter.with_failures(true), typed("port:443 failures"));
        assert_eq!(typed("failures port:443").with_failures(false), filter);
        assert!(filter.with_failures(true).wants_failures() && !filter.wants_failures());
        let service = "10.0.0.2:443".parse().expect("an address and a port");
        assert_eq!(ListFilter::of_failures(Some(service)), typed("tcp 10.0.0.2:443 failures"));
        assert_eq!(ListFilter::of_failures(None), typed("failures"));
        let network = "10.20.7.0/24".parse().expect("a network");
        assert_eq!(filter.with_client(network), typed("port:443 client:10.20.7.0/24"));
        assert_eq!(ListFilter::default().with_client(network), typed("client:10.20.7.0/24"));
    }

    #[test]
    fn a_wrong_word_has_a_message() {
        for (text, said) in [
            ("port:https", "'https' is no port (0 to 65535)"),
            ("port:9-8", "the range ends before it begins"),
            ("verdict:halfopen", "'halfopen' is not a verdict such as half_open or refused"),
            ("cause:none", "'none' is not a cause: use no_syn_ack, no_ack or answer_unseen"),
            (
                "host:a",
                "unknown 'host:': port:, verdict:, cause:, client:, net:, unit:, pod:, container: or cgroup:",
            ),
            ("connect>1", "a unit is missing: ms, s, m or h"),
            ("repeats>x", "'x' is not a number such as 0 or 3"),
            ("age>1s", "'age' cannot be compared: use connect>1s or repeats>0"),
            ("net:10", "'10' is no IP address"),
        ] {
            assert_eq!(ListFilter::parse(text), Err(said.to_owned()), "{text}");
        }
    }
}
