//! The books: the terms of the identity, of all attempts or of one service's.
//!
//! The gauges are the truth for how many attempts are open and of which cause, and they balance at every reading. The scan
//! of the tables comes later, while packets keep arriving, so it may count a few more or less. It therefore only says how
//! the gauges' open attempts divide by age:
//!
//! ```text
//! gauge open ─┬─ moved      past T2 and not yet met: shown as half_open_expired, never more than open
//!             ├─ half_open  at least T1 old in the scan, never more than is left
//!             └─ opening    the rest: what the scan missed was moving, so it was young
//! ```
//!
//! Whatever is taken from one term is added to another, so the identity holds in print for any scan.

use std::ops::AddAssign;

use handshake_common::abi::Counter;
use handshake_common::abi::{CounterBlock, SERVICE_GAUGES, SERVICE_WAS_SILENT};
use handshake_common::verdict::{Cause, Role, Sign, TCP, UDP, UdpVerdict, Verdict};

use crate::source::Reading;
use crate::source::scan::{Ages, ByCause};

/// The identity's terms: of all attempts, or of one service's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpBooks {
    /// SYNs that began an attempt.
    pub attempts: u64,
    /// Completed connections whose server is silent now.
    pub silent: u64,
    /// Those whose server was silent.
    pub was_silent: u64,
    /// Attempts by verdict, then by cause; a verdict without causes uses the first place.
    figures: [ByCause; Verdict::ALL.len()],
    /// Half-open attempts whose SYN came once, though every stack would have repeated it.
    never_repeated: ByCause,
    /// Half-open attempts whose SYN was repeated.
    repeated: ByCause,
    /// Half-open attempts whose initiator has stopped repeating.
    gave_up: u64,
}

/// The figures of TCP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpFigures {
    /// The terms of the identity.
    pub books: TcpBooks,
    /// Attempts completed more than T1 after the first SYN.
    pub late: u64,
    /// The verdicts outside the identity; the others count 0 here.
    outside: [u64; Verdict::ALL.len()],
    /// How often each verdict was entered, where attempts leave it again.
    entered: [Option<u64>; Verdict::ALL.len()],
    signs: [u64; Sign::ALL.len()],
}

/// The figures of UDP: of all flows, or of one service's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UdpBooks {
    /// All flows.
    pub flows: u64,
    figures: [u64; UdpVerdict::ALL.len()],
}

/// The figures of UDP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UdpFigures {
    /// The terms of the identity.
    pub books: UdpBooks,
    /// How often each verdict was entered, where flows leave it again.
    entered: [Option<u64>; UdpVerdict::ALL.len()],
    /// Packets of tracked flows.
    pub packets: u64,
    /// Bytes of their IP packets.
    pub bytes: u64,
}

impl TcpBooks {
    /// Divides the gauges' open attempts by what the scan found; `shown` is what `half_open_expired` may
    /// not fall below. Only a source whose time runs backwards could ask for more than is open: the
    /// identity goes first then.
    pub(super) fn settle(gauges: &[u64; SERVICE_GAUGES], ages: &Ages, shown: ByCause, stopped: bool) -> Self {
        let gauge = |counter: Counter| gauges[counter as usize - Counter::Attempts as usize];
        let silent = ages.silent.min(gauge(Counter::Completed));
        let was_silent = gauges[SERVICE_WAS_SILENT];
        let mut books = Self { attempts: gauge(Counter::Attempts), silent, was_silent, ..Self::default() };
        let told = TCP.iter().filter(|row| matches!(row.role, Role::End | Role::Term));
        for (row, part) in told.flat_map(|row| row.gauges.iter().map(move |part| (row, part))) {
            *books.at(row.verdict, part.cause.unwrap_or(Cause::NoSynAck)) = gauge(part.counter);
        }
        for cause in Cause::ALL {
            let (met, open) = (gauge(cause.expired()), gauge(cause.open()));
            let moved = ages.expired.of(cause).max(shown.of(cause).saturating_sub(met)).min(open);
            let left = open - moved;
            let half_open = if stopped { left } else { ages.half_open.of(cause).min(left) };
            *books.at(Verdict::HalfOpenExpired, cause) = met + moved;
            *books.at(Verdict::HalfOpen, cause) = half_open;
            *books.at(Verdict::Opening, cause) = left - half_open;
            *books.never_repeated.at(cause) = ages.never_repeated.of(cause).min(half_open);
            *books.repeated.at(cause) = ages.repeated.of(cause).min(half_open);
        }
        books.gave_up = ages.gave_up.min(books.verdict(Verdict::HalfOpen));
        books
    }

    fn at(&mut self, verdict: Verdict, cause: Cause) -> &mut u64 {
        self.figures[verdict as usize].at(cause)
    }

    /// The figure of a verdict; those outside the identity are not here and count 0.
    pub fn verdict(&self, verdict: Verdict) -> u64 {
        self.by_cause(verdict).total()
    }

    /// The figure of a verdict that has causes, by cause.
    pub fn by_cause(&self, verdict: Verdict) -> ByCause {
        self.figures[verdict as usize]
    }

    /// Half-open attempts whose SYN came once, though every stack would have repeated it, by cause.
    pub const fn never_repeated(&self) -> ByCause {
        self.never_repeated
    }

    /// Half-open attempts whose SYN was repeated, by cause.
    pub const fn repeated(&self) -> ByCause {
        self.repeated
    }

    /// Half-open attempts whose initiator has stopped repeating its SYN.
    pub const fn gave_up(&self) -> u64 {
        self.gave_up
    }

    /// Half-open attempts whose initiator may still wait.
    pub fn waiting(&self) -> u64 {
        self.verdict(Verdict::HalfOpen) - self.gave_up
    }

    /// Attempts that have had their time: all but those still opening.
    pub fn settled(&self) -> u64 {
        self.attempts.saturating_sub(self.verdict(Verdict::Opening))
    }

    /// Books of `attempts`, with the given figures by verdict and cause.
    #[cfg(any(test, feature = "testing"))]
    #[must_use]
    pub fn of(attempts: u64, figures: &[(Verdict, [u64; 2])]) -> Self {
        let mut books = Self { attempts, ..Self::default() };
        for (verdict, [no_syn_ack, no_ack]) in figures {
            books.figures[*verdict as usize] = ByCause([*no_syn_ack, *no_ack, 0]);
        }
        books
    }

    /// The identity's right side: all verdicts and what is open.
    #[cfg(test)]
    pub fn accounted(&self) -> u64 {
        Verdict::ALL.iter().map(|verdict| self.verdict(*verdict)).sum()
    }
}

impl AddAssign for TcpBooks {
    fn add_assign(&mut self, other: Self) {
        self.attempts += other.attempts;
        self.silent += other.silent;
        self.was_silent += other.was_silent;
        self.figures.iter_mut().zip(other.figures).for_each(|(sum, figure)| *sum += figure);
        self.never_repeated += other.never_repeated;
        self.repeated += other.repeated;
        self.gave_up += other.gave_up;
    }
}

impl TcpFigures {
    pub(super) fn of(reading: &Reading, ages: &Ages, shown: ByCause) -> Self {
        let counters = &reading.counters;
        let first = Counter::Attempts as usize;
        let mut gauges = std::array::from_fn(|i| counters.words[first + i]);
        gauges[SERVICE_WAS_SILENT] = word(counters, Counter::WasSilent);
        Self {
            books: TcpBooks::settle(&gauges, ages, shown, reading.stopped),
            late: word(counters, Counter::Late),
            outside: TCP.map(|row| if row.is_term() { 0 } else { word(counters, row.gauges[0].counter) }),
            entered: TCP.map(|row| row.entered.map(|entries| word(counters, entries.counter))),
            signs: Sign::ALL.map(|sign| word(counters, sign.counter())),
        }
    }

    /// The figure of a verdict, in the books or outside.
    pub fn verdict(&self, verdict: Verdict) -> u64 {
        self.books.verdict(verdict) + self.outside[verdict as usize]
    }

    /// How often a verdict was entered, where attempts leave it again.
    pub fn entered(&self, verdict: Verdict) -> Option<u64> {
        self.entered[verdict as usize]
    }

    /// How often a sign was seen.
    pub fn sign(&self, sign: Sign) -> u64 {
        self.signs[sign as usize]
    }
}

impl UdpBooks {
    /// Divides the flows that wait for an answer by what the scan found younger than T1. Where time stands still none
    /// is pending, because no answer will come.
    pub(super) fn settle(gauge: impl Fn(Counter) -> u64, ages: &Ages, stopped: bool) -> Self {
        let waiting = gauge(Counter::UdpWaiting);
        let pending = if stopped { 0 } else { ages.pending.min(waiting) };
        let figures = UDP.map(|row| match (row.role, row.verdict) {
            (Role::ByAge, UdpVerdict::Pending) => pending,
            (Role::ByAge, _) => waiting - pending,
            (Role::End | Role::Term | Role::Outside, _) => gauge(row.gauges[0].counter),
        });
        Self { flows: gauge(Counter::UdpFlows), figures }
    }

    /// The figure of a verdict.
    pub fn verdict(&self, verdict: UdpVerdict) -> u64 {
        self.figures[verdict as usize]
    }
}

impl AddAssign for UdpBooks {
    fn add_assign(&mut self, other: Self) {
        self.flows += other.flows;
        self.figures.iter_mut().zip(other.figures).for_each(|(sum, figure)| *sum += figure);
    }
}

impl UdpFigures {
    pub(super) fn of(reading: &Reading, ages: &Ages) -> Self {
        let counters = &reading.counters;
        Self {
            books: UdpBooks::settle(|counter| word(counters, counter), ages, reading.stopped),
            entered: UDP.map(|row| row.entered.map(|entries| word(counters, entries.counter))),
            packets: word(counters, Counter::UdpPackets),
            bytes: word(counters, Counter::UdpBytes),
        }
    }

    /// How often a verdict was entered, where flows leave it again.
    pub fn entered(&self, verdict: UdpVerdict) -> Option<u64> {
        self.entered[verdict as usize]
    }
}

pub(super) fn word(counters: &CounterBlock, counter: Counter) -> u64 {
    counters.words[counter as usize]
}
