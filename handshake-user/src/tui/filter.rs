//! The filter of the lists: words that a flow must all match. Pure.
//!
//! ```text
//! port:443 verdict:half_open 10.0.0.0/8 eth
//! ```
//!
//! Words about numbers are cheap enough to be checked for every record while the tables are read. Plain text
//! is searched in the kept records only.

use std::net::SocketAddr;

use handshake_agent::address::{Cidr, PortRange, words};
use handshake_agent::model::snapshot::ServiceBooks;
use handshake_agent::source::Moment;
use handshake_common::abi::Net;
use handshake_common::flow::Side;
use handshake_common::record::Record;
use handshake_common::verdict::{Cause, UdpVerdict, Verdict};

use super::service::ServiceLine;
use handshake_agent::model::flow::Flow;

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
    /// Any other text, in lower case.
    Text(String),
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

    /// Whether the filter has plain text, which is not searched in every record.
    pub(crate) fn has_text(&self) -> bool {
        self.terms.iter().any(|term| matches!(term, FilterTerm::Text(_)))
    }

    /// Whether a record matches all words except plain text.
    pub(crate) fn admits_record(&self, record: &Record, moment: &Moment) -> bool {
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
            FilterTerm::Text(_) => true,
        })
    }

    /// Whether an attempt matches all words. `interface` is where it was first seen; without it, plain text
    /// is not checked.
    pub(crate) fn admits(&self, attempt: &Flow, moment: &Moment, interface: Option<&str>) -> bool {
        self.terms.iter().all(|term| match term {
            FilterTerm::Verdict(name) => attempt.standing(moment).name() == *name,
            FilterTerm::Cause(cause) => attempt.cause(attempt.standing(moment)) == Some(*cause),
            FilterTerm::Text(text) => interface.is_none_or(|interface| {
                let standing = attempt.standing(moment);
                let cause = attempt.cause(standing).map_or("", Cause::name);
                let [from, to] = [Side::Initiator, Side::Responder].map(|side| attempt.end(side));
                let shown = format!("{from} {to} {} {cause} {interface}", standing.name());
                shown.to_lowercase().contains(text)
            }),
            FilterTerm::Port(_) | FilterTerm::Net(_) | FilterTerm::Socket { .. } | FilterTerm::Udp(_) => {
                let one = Self { text: String::new(), terms: vec![term.clone()] };
                one.admits_record(&attempt.record, moment)
            }
        })
    }

    /// Whether a service matches all words. A verdict matches if any flow of the service has it.
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
    match word.split_once(':') {
        Some(("port", value)) => value.parse().map(FilterTerm::Port),
        Some(("verdict", value)) => verdict(value),
        Some(("cause", value)) => cause(value),
        Some(("net", value)) => value.parse::<Cidr>().map(|net| FilterTerm::Net(net.net())),
        Some((key, _)) => Err(format!("unknown '{key}:'; use port:, verdict:, cause: or net:")),
        None if word == "tcp" || word == "udp" => Ok(FilterTerm::Udp(word == "udp")),
        None => Ok(FilterTerm::Text(word.to_lowercase())),
    }
}

fn socket(socket: SocketAddr) -> FilterTerm {
    let (address, family) = words(socket.ip());
    let address = Net { address, mask: [u32::MAX; 4], family: family as u32 };
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

fn ends(record: &Record) -> [([u32; 4], u16); 2] {
    [record.end(Side::Initiator), record.end(Side::Responder)]
}

fn ports(record: &Record) -> [u16; 2] {
    ends(record).map(|(_, port)| port)
}

fn is_in(net: &Net, address: [u32; 4], record: &Record) -> bool {
    net.family == record.family as u32 && matches(net, address)
}

fn is_within(net: &Net, socket: SocketAddr) -> bool {
    let (address, family) = words(socket.ip());
    net.family == family as u32 && matches(net, address)
}

fn matches(net: &Net, address: [u32; 4]) -> bool {
    (0..4).all(|word| address[word] & net.mask[word] == net.address[word] & net.mask[word])
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

    use handshake_agent::fake::{Fake, record, udp_record};
    use handshake_agent::source::Moment;
    use handshake_agent::source::Source as _;
    use handshake_common::record::State;
    use handshake_common::verdict::Cause;

    use super::{FilterTerm, ListFilter};
    use crate::testing::{TERMINAL, firsts};
    use handshake_agent::model::flow::Flow;

    /// A filter, and the indices of the flows below that it admits.
    const TABLE: [(&str, &[usize]); 20] = [
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
    ];

    #[test]
    fn a_flow_must_match_every_word() {
        let all = [
            record("10.0.0.1:40000", "10.0.0.2:443", State::SynReceived),
            record("[2001:db8::1]:40001", "[2001:db8::2]:443", State::Established),
            record("192.0.2.1:40000", "192.0.2.2:22", State::Refused),
            udp_record("10.0.0.1:5000", "10.0.0.2:53", State::UdpWaiting),
        ];
        let fake = Fake::new();
        let moment = Moment { now: fake.reading.now, stopped: false, clocks: without_expiry(&fake) };
        for (text, left) in TABLE {
            let filter = ListFilter::parse(text).expect(text);
            let fits = |at: &usize| filter.admits(&Flow::of(all[*at]), &moment, Some("eth0"));
            assert_eq!((0..all.len()).filter(fits).collect::<Vec<_>>(), left, "{text}");
            // The scan must not leave out what the list would show.
            let passes = |at: &usize| filter.admits_record(&all[*at], &moment);
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
            FilterTerm::Text(_) => 6,
        };
        let kinds: BTreeSet<usize> = terms.iter().map(kind).collect();
        assert_eq!(kinds, (0..6).collect(), "{words:?}");
        for cause in Cause::ALL {
            assert!(words.contains(&format!("cause:{}", cause.name())), "{cause:?}");
        }
    }

    #[test]
    fn a_wrong_word_has_a_message() {
        for (text, said) in [
            ("port:https", "'https' is no port (0 to 65535)"),
            ("port:9-8", "the range ends before it begins"),
            ("verdict:halfopen", "'halfopen' is not a verdict such as half_open or refused"),
            ("cause:none", "'none' is not a cause: use no_syn_ack, no_ack or answer_unseen"),
            ("host:a", "unknown 'host:'; use port:, verdict:, cause: or net:"),
            ("net:10", "'10' is no IP address"),
        ] {
            assert_eq!(ListFilter::parse(text), Err(said.to_owned()), "{text}");
        }
    }
}
