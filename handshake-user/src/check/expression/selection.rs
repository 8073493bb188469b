//! What a figure is of: the whole report, some of its services, or some of its workloads.

use std::fmt;
use std::net::SocketAddr;

use handshake_agent::address::{Cidr, PortRange};
use handshake_agent::owner::{Owner, OwnerChoice, OwnerKind};
use handshake_agent::similar;
use handshake_common::flow::Side;

use super::{Fault, Span};

/// The name, the value and the place of each selector, not parsed yet.
pub(super) type WrittenSelectors = [(String, String, Span)];

/// What a figure is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Selection {
    /// The whole report.
    All,
    /// Services.
    Services(Services),
    /// Workloads.
    Workloads(Workloads),
}

/// Services by their sockets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Services(Vec<Socket>);

/// Workloads by their owners.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Workloads {
    owners: Vec<OwnerChoice>,
    /// The side, if one was given.
    pub(crate) side: Option<Side>,
}

/// A condition on a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Socket {
    /// Its port is in this range.
    Port(PortRange),
    /// Its address is in this network.
    Address(Cidr),
}

/// A selector that was read.
enum Selector {
    Socket(Socket),
    Owner(OwnerChoice),
    Side(Side),
}

const PORT: &str = "port";
const ADDRESS: &str = "address";
const SIDE: &str = "side";

impl Selection {
    /// Reads selectors. Those of a service and those of a workload do not go together.
    pub(super) fn of(written: &WrittenSelectors) -> Result<Self, Fault> {
        let (mut sockets, mut owners, mut side) = (Vec::new(), Vec::new(), None);
        for (at, (name, value, span)) in written.iter().enumerate() {
            let fault = |message: String| Fault::new(*span, message);
            if written[..at].iter().any(|(before, ..)| before == name) {
                return Err(fault(format!("{name} is given twice; 8000-8100 is a range of ports")));
            }
            match Selector::parse(name, value).map_err(fault)? {
                Selector::Socket(socket) => sockets.push(socket),
                Selector::Owner(owner) => owners.push(owner),
                Selector::Side(one) => side = Some(one),
            }
            if !sockets.is_empty() && (!owners.is_empty() || side.is_some()) {
                return Err(fault("services and workloads are counted apart: select either".to_owned()));
            }
        }
        match (sockets.is_empty(), owners.is_empty(), side) {
            (true, true, None) => Ok(Self::All),
            (true, true, Some(_)) => {
                let (.., span) = &written[0];
                Err(Fault::new(*span, "whose side? Add unit, pod, container or cgroup"))
            }
            (false, ..) => Ok(Self::Services(Services(sockets))),
            (true, false, side) => Ok(Self::Workloads(Workloads { owners, side })),
        }
    }
}

impl Selector {
    fn parse(name: &str, value: &str) -> Result<Self, String> {
        match name {
            PORT => value.parse().map(|ports| Self::Socket(Socket::Port(ports))),
            ADDRESS => value.parse().map(|net| Self::Socket(Socket::Address(net))),
            SIDE => {
                let side = Side::BOTH.into_iter().find(|side| side.name() == value);
                side.map(Self::Side).ok_or_else(|| {
                    format!("'{}' is no side: use initiator or responder", value.escape_debug())
                })
            }
            _ => match OwnerKind::named(name) {
                Some(kind) => OwnerChoice::new(kind, value).map(Self::Owner),
                None => Err(unknown(name)),
            },
        }
    }
}

fn unknown(name: &str) -> String {
    let kinds = OwnerKind::ALL.map(OwnerKind::name);
    let known = [[PORT, ADDRESS].as_slice(), &kinds, &[SIDE]].concat();
    let meant = similar::closest(&known, name).map(|close| format!("; did you mean {close}?"));
    let hint = meant.unwrap_or_else(|| format!(": use {}", known.join(", ")));
    format!("no selector {}{hint}", name.escape_debug())
}

impl Services {
    /// Whether a service is one of them.
    pub(crate) fn take(&self, service: SocketAddr) -> bool {
        self.0.iter().all(|socket| match socket {
            Socket::Port(ports) => (ports.first..=ports.last).contains(&service.port()),
            Socket::Address(net) => net.contains(service.ip()),
        })
    }
}

impl Workloads {
    /// Whether a row of this owner on this side is one of them. `None` where that is not known.
    pub(crate) fn take(&self, owner: Option<&Owner>, side: Option<Side>) -> Option<bool> {
        if self.side.is_some() && side.is_some() && self.side != side {
            return Some(false);
        }
        let answers = self.owners.iter().map(|choice| choice.takes(owner?));
        answers.reduce(|all, each| match (all, each) {
            (Some(false), _) | (_, Some(false)) => Some(false),
            (Some(true), Some(true)) => Some(true),
            (None, _) | (_, None) => None,
        })?
    }
}

impl fmt::Display for Selection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown: Vec<String> = match self {
            Self::All => return Ok(()),
            Self::Services(Services(sockets)) => sockets.iter().map(ToString::to_string).collect(),
            Self::Workloads(Workloads { owners, side }) => {
                let owners = owners.iter().map(|owner| format!("{}={owner}", owner.kind.name()));
                owners.chain(side.map(|side| format!("{SIDE}={}", side.name()))).collect()
            }
        };
        write!(f, "{{{}}}", shown.join(","))
    }
}

impl fmt::Display for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port(ports) => write!(f, "{PORT}={ports}"),
            Self::Address(net) => write!(f, "{ADDRESS}={net}"),
        }
    }
}
