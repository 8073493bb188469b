//! What the rules of nftables count that drop or reject, by nfnetlink (`linux/netfilter/nf_tables.h`). The rules
//! that iptables-nft writes are among them. Asking takes CAP_NET_ADMIN.
//!
//! ```text
//! rule │ table │ chain │ handle │ expressions: payload, cmp, …, counter, immediate: drop │
//!                                              ╰─ conditions ─╯
//! ```
//!
//! A counter counts the packets that reached it. So it counts what its rule drops only where no condition
//! comes behind it.

mod condition;

use std::fmt;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::Path;

use crate::netlink::{FILTER, Message, Netlink, attributes, find, pack, text, u32_at, unpack};
use condition::{Condition, Segment, conditions};

/// `NFNL_SUBSYS_NFTABLES`, the upper byte of a message's type.
const SUBSYSTEM: u16 = 10 << 8;
/// `NFT_MSG_NEWCHAIN` and `NFT_MSG_NEWRULE` answer the questions whose numbers are one more.
const NEW_CHAIN: u16 = SUBSYSTEM | 3;
const NEW_RULE: u16 = SUBSYSTEM | 6;
/// Bytes of `struct nfgenmsg`: the family, the version, and a resource.
const HEADER: usize = 4;

/// `NFTA_*_TABLE`, the same in chains and rules.
const TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const CHAIN_POLICY: u16 = 5;
const CHAIN_COUNTERS: u16 = 8;
const RULE_CHAIN: u16 = 2;
const RULE_HANDLE: u16 = 3;
const RULE_EXPRESSIONS: u16 = 4;
const EXPRESSION_NAME: u16 = 1;
const EXPRESSION_DATA: u16 = 2;
const COUNTER_PACKETS: u16 = 2;
const IMMEDIATE_REGISTER: u16 = 1;
const IMMEDIATE_DATA: u16 = 2;
const DATA_VERDICT: u16 = 2;
const VERDICT_CODE: u16 = 1;
const REJECT_TYPE: u16 = 1;
const TARGET_NAME: u16 = 1;
const TARGET_INFO: u16 = 3;

/// `NF_DROP`.
const DROP: u32 = 0;
/// `NFT_REG_VERDICT`.
const VERDICT_REGISTER: u32 = 0;
/// `NFT_REJECT_TCP_RST`.
const WITH_RESET: u32 = 1;
/// `IPT_TCP_RESET` and `IP6T_TCP_RESET`.
const TARGET_RESETS: [(u8, u32); 2] = [(family::IP, 7), (family::IP6, 6)];

/// `NFPROTO_*`.
mod family {
    pub(super) const INET: u8 = 1;
    pub(super) const IP: u8 = 2;
    pub(super) const ARP: u8 = 3;
    pub(super) const NETDEV: u8 = 5;
    pub(super) const BRIDGE: u8 = 7;
    pub(super) const IP6: u8 = 10;
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// It is dropped.
    Drop,
    /// It is answered by an ICMP error.
    Reject,
    /// It is answered by a RST.
    Reset,
}

impl Deed {
    /// The name in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Drop => "drop",
            Self::Reject => "reject",
            Self::Reset => "reject_with_tcp_reset",
        }
    }

    /// What the rule does, as a word behind its name.
    #[must_use]
    pub const fn verb(self) -> &'static str {
        match self {
            Self::Drop => "drops",
            Self::Reject => "rejects",
            Self::Reset => "rejects by RST",
        }
    }
}

/// A rule that drops or rejects, or a chain whose policy drops, with the packets that it counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CountedRule {
    /// `NFPROTO_*` of the table.
    family: u8,
    /// The table's name.
    pub table: String,
    /// The chain's name.
    pub chain: String,
    /// The rule's handle in its table; `None` for the policy of the chain.
    pub handle: Option<u64>,
    /// What it does.
    pub deed: Deed,
    /// The packets that it counted since it was made.
    pub packets: u64,
    conditions: Vec<Condition>,
}

impl CountedRule {
    /// One of the table `inet t` and the chain `c`, about this port of the responder.
    #[cfg(any(test, feature = "testing"))]
    #[must_use]
    pub fn of(handle: Option<u64>, deed: Deed, packets: u64, port: Option<u16>) -> Self {
        let conditions = port.map(Condition::of_port).into_iter().collect();
        let (table, chain) = ("t".to_owned(), "c".to_owned());
        Self { family: family::INET, table, chain, handle, deed, packets, conditions }
    }

    /// The word of nft for the table's family.
    #[must_use]
    pub const fn family(&self) -> &'static str {
        match self.family {
            family::INET => "inet",
            family::IP => "ip",
            family::IP6 => "ip6",
            family::ARP => "arp",
            family::NETDEV => "netdev",
            family::BRIDGE => "bridge",
            _ => "unknown",
        }
    }

    /// Whether it is the same rule in another reading.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        let key = |one: &Self| (one.family, one.handle, one.deed);
        key(self) == key(other) && self.table == other.table && self.chain == other.chain
    }

    /// Whether the handshakes of a service can meet it, as far as its conditions were understood.
    #[must_use]
    pub fn may_concern(&self, service: Option<SocketAddr>) -> bool {
        let both = [true, false].map(|to_service| Segment { to_service, service });
        both.iter()
            .filter(|segment| segment.may_be_of(self.family))
            .any(|segment| self.conditions.iter().all(|condition| condition.may_hold(segment)))
    }
}

impl fmt::Display for CountedRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (family, table, chain) = (self.family(), &self.table, &self.chain);
        match self.handle {
            Some(handle) => write!(f, "the rule {family} {table} {chain} handle {handle}"),
            None => write!(f, "the policy of the chain {family} {table} {chain}"),
        }
    }
}

/// Asks for the rules of this thread's network namespace. Opened once, so that a reading makes no socket.
#[derive(Debug)]
pub struct Nftables(Netlink);

impl Nftables {
    /// Opens the socket that answers.
    ///
    /// # Errors
    ///
    /// The kernel's. [`io::ErrorKind::Unsupported`] where it has no nf_tables, or would load the module to answer.
    pub fn open() -> io::Result<Self> {
        if !is_there() {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "nf_tables is not loaded"));
        }
        Netlink::open(FILTER).map(Self)
    }

    /// Reads the rules that drop or reject and count, as [`counted_rules`] takes them.
    ///
    /// # Errors
    ///
    /// The kernel's: it takes CAP_NET_ADMIN.
    pub fn read(&mut self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        for new in [NEW_CHAIN, NEW_RULE] {
            let answers = self.0.dump(new + 1, &[0; HEADER])?;
            for message in answers.iter().filter(|message| counted(message).is_some()) {
                bytes.extend(pack(message)?);
            }
        }
        Ok(bytes)
    }
}

/// The rules in a reading. What is not understood is left out.
#[must_use]
pub fn counted_rules(bytes: &[u8]) -> Vec<CountedRule> {
    unpack(bytes).iter().filter_map(counted).collect()
}

/// Whether nf_tables is there already: a question would have the kernel load its module.
fn is_there() -> bool {
    let is_built_in = || {
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let list = fs::read_to_string(format!("/lib/modules/{}/modules.builtin", release.trim_end()));
        list.is_ok_and(|list| list.lines().any(|line| line.ends_with("/nf_tables.ko")))
    };
    // A kernel without modules loads none.
    !Path::new("/proc/modules").exists() || Path::new("/sys/module/nf_tables").exists() || is_built_in()
}

fn counted(message: &Message) -> Option<CountedRule> {
    let family = *message.body.first()?;
    let body = message.body.get(HEADER..)?;
    let named = |kind| find(body, kind).map(text);
    match message.kind {
        NEW_CHAIN => Some(CountedRule {
            family,
            table: named(TABLE)?,
            chain: named(CHAIN_NAME)?,
            handle: None,
            deed: (number(body, CHAIN_POLICY)? == DROP).then_some(Deed::Drop)?,
            packets: packets(find(body, CHAIN_COUNTERS)?)?,
            conditions: Vec::new(),
        }),
        NEW_RULE => {
            let expressions: Vec<_> = expressions(find(body, RULE_EXPRESSIONS)?).collect();
            let (packets, deed) = counter_and_deed(&expressions, family)?;
            Some(CountedRule {
                family,
                table: named(TABLE)?,
                chain: named(RULE_CHAIN)?,
                handle: Some(wide(find(body, RULE_HANDLE)?)?),
                deed,
                packets,
                conditions: conditions(&expressions),
            })
        }
        _ => None,
    }
}

/// Name and attributes of each expression, in order.
fn expressions(list: &[u8]) -> impl Iterator<Item = (String, &[u8])> {
    attributes(list).filter_map(|(_, expression)| {
        let name = text(find(expression, EXPRESSION_NAME)?);
        Some((name, find(expression, EXPRESSION_DATA).unwrap_or_default()))
    })
}

/// The packets that reached the rule's deed, and the deed.
fn counter_and_deed(expressions: &[(String, &[u8])], family: u8) -> Option<(u64, Deed)> {
    let mut counted = None;
    for (name, data) in expressions {
        let deed = match name.as_str() {
            "counter" => {
                counted = packets(data);
                None
            }
            "log" => None,
            "immediate" => dropped(data),
            "reject" => {
                Some(if number(data, REJECT_TYPE) == Some(WITH_RESET) { Deed::Reset } else { Deed::Reject })
            }
            "target" => rejected(data, family),
            // It may let fewer packets pass than were counted.
            _ => {
                counted = None;
                None
            }
        };
        if let Some(deed) = deed {
            return counted.map(|packets| (packets, deed));
        }
    }
    None
}

fn dropped(immediate: &[u8]) -> Option<Deed> {
    let is_verdict = number(immediate, IMMEDIATE_REGISTER)? == VERDICT_REGISTER;
    let verdict = find(find(immediate, IMMEDIATE_DATA)?, DATA_VERDICT)?;
    (is_verdict && number(verdict, VERDICT_CODE)? == DROP).then_some(Deed::Drop)
}

/// The target `REJECT`, which iptables-nft writes.
fn rejected(target: &[u8], family: u8) -> Option<Deed> {
    if text(find(target, TARGET_NAME)?) != "REJECT" {
        return None;
    }
    let with = find(target, TARGET_INFO).and_then(|info| u32_at(info, 0));
    let is_reset = with.is_some_and(|with| TARGET_RESETS.contains(&(family, with)));
    Some(if is_reset { Deed::Reset } else { Deed::Reject })
}

fn packets(counter: &[u8]) -> Option<u64> {
    find(counter, COUNTER_PACKETS).and_then(wide)
}

/// The numbers of nfnetlink are in the order of the network.
fn number(attributes: &[u8], kind: u16) -> Option<u32> {
    Some(u32::from_be_bytes(*find(attributes, kind)?.first_chunk()?))
}

fn wide(value: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(*value.first_chunk()?))
}

#[cfg(test)]
mod tests;
