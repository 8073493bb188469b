//! One conversation as the terminal keeps it: its record, and how it ended when its end was told. Pure.

use std::net::SocketAddr;

use handshake_agent::address::ip;
use handshake_agent::model::flow::{cause, opened_ns};
use handshake_common::abi::{TcpRecord, UdpRecord};
use handshake_common::flow::{Family, FlowKey, Side};
use handshake_common::record::{Clocks, Detail, Now, Record};
use handshake_common::verdict::{Cause, UdpVerdict, Verdict};

/// A TCP attempt or a UDP flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Attempt {
    /// What the kernel side knew of it.
    pub(crate) record: Record,
    /// Of an attempt whose end was told.
    pub(crate) ended: Option<Ended>,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    /// As what.
    pub(crate) verdict: Verdict,
    /// When, on the records' clock.
    pub(crate) at_ns: u64,
}

/// What stays the same of an attempt while it lives: its ends, and when it began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Id {
    family: Family,
    key: FlowKey,
    opened_ns: u64,
}

/// How a conversation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// A TCP attempt.
    Tcp(Verdict),
    /// A UDP flow.
    Udp(UdpVerdict),
}

impl Standing {
    /// The verdict's name in reports.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Tcp(verdict) => verdict.name(),
            Self::Udp(verdict) => verdict.name(),
        }
    }

    /// What it means, and where to look.
    pub(crate) const fn sentence(self) -> &'static str {
        match self {
            Self::Tcp(verdict) => verdict.sentence(),
            Self::Udp(verdict) => verdict.sentence(),
        }
    }
}

impl Attempt {
    /// As the table has it.
    pub(crate) const fn of(record: Record) -> Self {
        Self { record, ended: None }
    }

    /// What it is known by.
    pub(crate) fn id(&self) -> Id {
        Id { family: self.record.family, key: self.record.key, opened_ns: self.opened_ns() }
    }

    /// Its first packet, on the records' clock.
    pub(crate) fn opened_ns(&self) -> u64 {
        opened_ns(&self.record)
    }

    /// When it last became what it is: its end where that was told, else its beginning.
    pub(crate) fn moment_ns(&self) -> u64 {
        self.ended.map_or_else(|| self.opened_ns(), |ended| ended.at_ns)
    }

    /// Address and port of one end.
    pub(crate) fn end(&self, side: Side) -> SocketAddr {
        let (address, port) = self.record.end(side);
        SocketAddr::new(ip(address, self.record.family), port)
    }

    /// How it stands at `now`; a free slot's record stands as a connection whose beginning nobody saw.
    pub(crate) fn standing(&self, now: Now, clocks: &Clocks) -> Standing {
        if let Some(ended) = self.ended {
            return Standing::Tcp(ended.verdict);
        }
        match self.record.udp_verdict(now, clocks) {
            Some(verdict) => Standing::Udp(verdict),
            None => Standing::Tcp(self.record.verdict(now, clocks).unwrap_or(Verdict::Midstream)),
        }
    }

    /// Why it is not completed, beside verdicts that have a cause; an opening one has it too, for the ladder.
    pub(crate) fn cause(&self, standing: Standing) -> Option<Cause> {
        match standing {
            Standing::Tcp(verdict) => cause(verdict, self.record.state),
            Standing::Udp(_) => None,
        }
    }

    /// SYNs and SYN+ACKs sent again.
    pub(crate) fn retransmissions(&self) -> u16 {
        self.tcp().map_or(0, |tcp| {
            u16::from(tcp.syn_retransmits(self.record.flags)) + u16::from(tcp.syn_ack_retransmits)
        })
    }

    /// Is it waiting: open, or without an answer yet?
    pub(crate) fn is_open(&self) -> bool {
        self.ended.is_none() && self.record.state.is_open()
    }

    /// The TCP part.
    pub(crate) const fn tcp(&self) -> Option<&TcpRecord> {
        match &self.record.detail {
            Detail::Tcp(tcp) => Some(tcp),
            Detail::Udp(_) => None,
        }
    }

    /// The UDP part.
    pub(crate) const fn udp(&self) -> Option<&UdpRecord> {
        match &self.record.detail {
            Detail::Tcp(_) => None,
            Detail::Udp(udp) => Some(udp),
        }
    }
}
