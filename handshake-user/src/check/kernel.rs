//! The kernel's own account of the same time, set beside the wire's: what `/proc/net/snmp` and `netstat` count of the
//! network namespace we are in.
//!
//! They are the namespace's, not an interface's, know no filter, and count what its own TCP did: on a router they say
//! nothing of what passed. So what is said of a difference claims no more than holds for all of these.

mod address;

use std::fs;
use std::net::IpAddr;

use handshake_common::verdict::Verdict;

use crate::check::CheckError;
use crate::number::group;
pub(crate) use address::Addresses;
use handshake_agent::model::snapshot::{ServiceBooks, Snapshot};

/// What the kernel counts of handshakes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KernelCounter {
    /// Connections its listeners took.
    PassiveOpens,
    /// Connections its clients began.
    ActiveOpens,
    /// Attempts of either kind that came to nothing.
    AttemptFails,
    /// SYNs and SYN+ACKs sent again.
    SynRetrans,
    /// SYNs dropped and ACKs not taken for want of room in an accept queue.
    ListenOverflows,
    /// The same for any reason.
    ListenDrops,
    /// SYNs dropped for want of room in a SYN queue.
    ReqQFullDrop,
    /// SYN cookies sent.
    SyncookiesSent,
    /// ACKs that fit no cookie.
    SyncookiesFailed,
}

impl KernelCounter {
    /// In the order of reports.
    pub(crate) const ALL: [Self; 9] = [
        Self::PassiveOpens,
        Self::ActiveOpens,
        Self::AttemptFails,
        Self::SynRetrans,
        Self::ListenOverflows,
        Self::ListenDrops,
        Self::ReqQFullDrop,
        Self::SyncookiesSent,
        Self::SyncookiesFailed,
    ];

    /// As `nstat` and `netstat -s` know it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::PassiveOpens => "PassiveOpens",
            Self::ActiveOpens => "ActiveOpens",
            Self::AttemptFails => "AttemptFails",
            Self::SynRetrans => "TCPSynRetrans",
            Self::ListenOverflows => "ListenOverflows",
            Self::ListenDrops => "ListenDrops",
            Self::ReqQFullDrop => "TCPReqQFullDrop",
            Self::SyncookiesSent => "SyncookiesSent",
            Self::SyncookiesFailed => "SyncookiesFailed",
        }
    }

    /// Its name in the JSON report.
    pub(crate) const fn field(self) -> &'static str {
        match self {
            Self::PassiveOpens => "passive_opens",
            Self::ActiveOpens => "active_opens",
            Self::AttemptFails => "attempt_fails",
            Self::SynRetrans => "tcp_syn_retrans",
            Self::ListenOverflows => "listen_overflows",
            Self::ListenDrops => "listen_drops",
            Self::ReqQFullDrop => "tcp_req_q_full_drop",
            Self::SyncookiesSent => "syncookies_sent",
            Self::SyncookiesFailed => "syncookies_failed",
        }
    }

    /// What it means where it is not 0, and where to look; nothing of those that count what should be.
    const fn sentence(self) -> Option<&'static str> {
        match self {
            Self::PassiveOpens | Self::ActiveOpens | Self::AttemptFails | Self::SynRetrans => None,
            Self::ListenOverflows => Some(
                "an accept queue was full; it counts every SYN dropped and every ACK not taken, repetitions too, not connections. Look at: ss -ltn, the backlog, net.core.somaxconn",
            ),
            Self::ListenDrops => Some(
                "listeners dropped SYNs and ACKs for other reasons than a full accept queue. Look at: the SYN queue, memory",
            ),
            Self::ReqQFullDrop => Some(
                "a SYN queue was full, and SYNs were dropped. Look at: net.ipv4.tcp_max_syn_backlog, net.ipv4.tcp_syncookies",
            ),
            Self::SyncookiesSent => Some(
                "a SYN queue was full; the ACK of a cookie that then finds no room vanishes without a trace. Look at: the backlog, a flood",
            ),
            Self::SyncookiesFailed => Some("ACKs that fit no SYN cookie. Look at: a flood of ACKs"),
        }
    }
}

/// The counters, since the namespace is there or over some time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct NetCounters([u64; KernelCounter::ALL.len()]);

impl NetCounters {
    /// As they stand in this thread's network namespace.
    ///
    /// # Errors
    ///
    /// They cannot be read.
    pub(crate) fn read() -> Result<Self, CheckError> {
        let text = |file: &str| {
            let path = format!("/proc/thread-self/net/{file}");
            fs::read_to_string(&path).map_err(CheckError::system(format!("read {path}")))
        };
        Ok(Self::parse(&[text("snmp")?, text("netstat")?]))
    }

    /// Two lines a group: `Tcp: NAME NAME …`, then `Tcp: 1 2 …`. What a kernel does not know is 0.
    pub(super) fn parse(texts: &[String]) -> Self {
        let mut counts = Self::default();
        for text in texts {
            let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("Tcp")).collect();
            for pair in lines.chunks_exact(2) {
                for (name, value) in pair[0].split_whitespace().zip(pair[1].split_whitespace()).skip(1) {
                    let counter = KernelCounter::ALL.into_iter().find(|counter| counter.name() == name);
                    if let (Some(counter), Ok(value)) = (counter, value.parse()) {
                        counts.0[counter as usize] = value;
                    }
                }
            }
        }
        counts
    }

    /// How far they have risen since `earlier`.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i].wrapping_sub(earlier.0[i])))
    }

    /// One of them.
    pub(crate) fn of(&self, counter: KernelCounter) -> u64 {
        self.0[counter as usize]
    }
}

/// The kernel's account and what the wire says of the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NetAccount {
    /// The kernel's, from the command's start to the end of settling.
    pub(crate) counts: NetCounters,
    /// Handshakes that completed on the wire meanwhile with a service at one of the namespace's addresses; `None` where
    /// services are not told apart.
    pub(crate) completed: Option<u64>,
}

impl NetAccount {
    /// Of the time between two snapshots, with every service by name.
    pub(crate) fn between(before: &Snapshot, after: &Snapshot, counts: NetCounters, own: &Addresses) -> Self {
        let completed = |snapshot| completed_at(snapshot, |address| own.has(address));
        let completed = completed(before).zip(completed(after)).map(|(b, a)| a.saturating_sub(b));
        Self { counts, completed }
    }

    /// What the differences mean, a sentence each.
    pub(crate) fn words(&self) -> Vec<String> {
        let told = KernelCounter::ALL.into_iter().filter(|counter| self.is_telling(*counter));
        let told = told.filter_map(|counter| {
            let count = group(self.counts.of(counter));
            Some(format!("{} {count}: {}", counter.name(), counter.sentence()?))
        });
        self.not_taken().into_iter().chain(told).chain(self.others()).collect()
    }

    /// Dropped segments that overflowed are told as such only.
    fn is_telling(&self, counter: KernelCounter) -> bool {
        let told_before = match counter {
            KernelCounter::ListenDrops => self.counts.of(KernelCounter::ListenOverflows),
            KernelCounter::PassiveOpens
            | KernelCounter::ActiveOpens
            | KernelCounter::AttemptFails
            | KernelCounter::SynRetrans
            | KernelCounter::ListenOverflows
            | KernelCounter::ReqQFullDrop
            | KernelCounter::SyncookiesSent
            | KernelCounter::SyncookiesFailed => 0,
        };
        self.counts.of(counter) > told_before
    }

    /// Completed on the wire, but not accepted. The kernel's reading is the wider of the two: what is missing there was
    /// not taken meanwhile. Where it dropped nothing, something else may have taken it.
    fn not_taken(&self) -> Option<String> {
        let accepted = self.counts.of(KernelCounter::PassiveOpens);
        let completed = self.completed.filter(|completed| *completed > accepted)?;
        let missing = completed - accepted;
        let acks = if missing == 1 { "1 ACK was".to_owned() } else { format!("{missing} ACKs were") };
        let proofs = [KernelCounter::ListenDrops, KernelCounter::SyncookiesSent];
        let proven = proofs.into_iter().any(|counter| self.counts.of(counter) != 0);
        let otherwise =
            if proven { "" } else { ", or taken elsewhere (deferred accept, address translation)" };
        Some(format!(
            "{} completed on the wire, {} accepted (PassiveOpens): {acks} not taken{otherwise}",
            group(completed),
            group(accepted)
        ))
    }

    /// Accepted, but not seen to complete.
    fn others(&self) -> Option<String> {
        let accepted = self.counts.of(KernelCounter::PassiveOpens);
        let completed = self.completed.filter(|completed| *completed < accepted)?;
        Some(format!(
            "{} accepted (PassiveOpens), {} completed here: the others came another way, or are filtered out",
            group(accepted),
            group(completed)
        ))
    }
}

/// Completed handshakes with services at some addresses; `None` where some service has no row of its own.
fn completed_at(snapshot: &Snapshot, own: impl Fn(IpAddr) -> bool) -> Option<u64> {
    let mut sum = 0;
    for row in &snapshot.services {
        let ServiceBooks::Tcp(books) = &row.books else { continue };
        match row.service {
            Some(service) if own(service.ip()) => sum += books.verdict(Verdict::Completed),
            None if books.verdict(Verdict::Completed) != 0 => return None,
            Some(_) | None => {}
        }
    }
    Some(sum)
}
