//! The attempts that ended last, from the event ring, and the legs of each service's latest completions.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::rc::Rc;

use handshake_common::flow::{Address, Side};
use handshake_common::record::{Clocks, Now};
use handshake_common::verdict::Verdict;

use super::filter::ListFilter;
use super::owners::Owners;
use super::service::Legs;
use handshake_agent::model::flow::{Flow, Standing};
use handshake_agent::source::Moment;

/// Most attempts kept: of all, and of those that pass the filter.
pub(crate) const KEPT: usize = 1_000;
/// Most services whose times are kept.
const SERVICES: usize = 1_000;
/// Most completions kept per service.
const SAMPLES: usize = 32;

/// Any moment: the verdict of an ended attempt does not depend on it.
const ANY_MOMENT: Moment = Moment {
    now: Now { ns: 0, jiffies: 0 },
    stopped: false,
    clocks: Clocks { half_open_after_ns: 0, expire_after_ns: 0, udp_idle_jiffies: 0, idle_after_jiffies: 0 },
};

/// The attempts that ended last.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    all: VecDeque<Flow>,
    /// Attempts that pass the filter. Kept apart, because frequent verdicts would soon displace a rare one.
    fitting: VecDeque<Flow>,
    filter: ListFilter,
    /// The attempts that did not complete, for the same reason.
    failed: VecDeque<Flow>,
    legs: HashMap<SocketAddr, Samples>,
    total: u64,
    /// Whose their ends are, as far as it is known by now.
    owners: Rc<Owners>,
}

/// The latest times of a service by leg, ns.
#[derive(Clone, Debug, Default)]
struct Samples {
    first: VecDeque<u64>,
    second: VecDeque<u64>,
}

impl Recent {
    /// Adds an ended attempt. Words of the filter that need a moment concern verdicts, which are fixed for
    /// ended attempts. Plain text is searched by the list.
    pub(crate) fn push(&mut self, attempt: Flow) {
        self.total += 1;
        if attempt.ended.is_some_and(|end| end.standing == Standing::Tcp(Verdict::Completed)) {
            self.time(&attempt);
        }
        if !self.filter.is_empty() && self.filter.admits(&attempt, &ANY_MOMENT, None, &self.owners) {
            keep(&mut self.fitting, attempt, KEPT);
        }
        if attempt.ended.is_some_and(|end| !end.standing.is_good()) {
            keep(&mut self.failed, attempt, KEPT);
        }
        keep(&mut self.all, attempt, KEPT);
    }

    /// Sets the filter, and applies it to the kept attempts.
    pub(crate) fn filter_by(&mut self, filter: &ListFilter) {
        if *filter != self.filter {
            self.filter = filter.clone();
            let fits = |attempt: &&Flow| filter.admits(attempt, &ANY_MOMENT, None, &self.owners);
            let kept = if filter.wants_failures() { &self.failed } else { &self.all };
            self.fitting = kept.iter().filter(fits).copied().collect();
        }
    }

    /// Takes the owners of a new scene.
    pub(crate) fn name_by(&mut self, owners: &Rc<Owners>) {
        self.owners = Rc::clone(owners);
    }

    /// Lists these flows, which pass the filter, in the place of the latest.
    pub(crate) fn list(&mut self, filter: &ListFilter, flows: Vec<Flow>) {
        self.filter = filter.clone();
        self.fitting.clear();
        self.all = flows.into();
        if !filter.is_empty() {
            self.fitting.clone_from(&self.all);
        }
    }

    /// Number of attempts that have ended since the start. It changes with each new one.
    pub(crate) const fn total(&self) -> u64 {
        self.total
    }

    /// The attempts that pass the filter, the latest first. An attempt with two events, as after a revised
    /// refusal, appears once, with its last end.
    pub(crate) fn latest(&self) -> Vec<Flow> {
        let kept = if self.filter.is_empty() { &self.all } else { &self.fitting };
        let mut seen: Vec<&Flow> = kept.iter().rev().collect();
        // The sort is stable: of two events of one attempt, the later stays first.
        seen.sort_by_key(|attempt| identity(attempt));
        seen.dedup_by_key(|attempt| identity(attempt));
        let mut latest: Vec<Flow> = seen.into_iter().copied().collect();
        latest.sort_by_key(|attempt| std::cmp::Reverse(attempt.moment_ns()));
        latest
    }

    /// The medians of a service's latest times.
    pub(crate) fn legs(&self, service: SocketAddr) -> Legs {
        let samples = self.legs.get(&service);
        Legs {
            syn_to_syn_ack_ns: samples.and_then(|samples| middle(&samples.first)),
            syn_ack_to_ack_ns: samples.and_then(|samples| middle(&samples.second)),
        }
    }

    fn time(&mut self, attempt: &Flow) {
        let service = attempt.end(Side::Responder);
        if self.legs.len() >= SERVICES && !self.legs.contains_key(&service) {
            return;
        }
        let samples = self.legs.entry(service).or_default();
        if let Some(ns) = attempt.syn_to_syn_ack_ns() {
            keep(&mut samples.first, ns, SAMPLES);
        }
        if let Some(ns) = attempt.syn_ack_to_ack_ns() {
            keep(&mut samples.second, ns, SAMPLES);
        }
    }
}

fn identity(attempt: &Flow) -> (u64, u32, Address, Address) {
    let key = attempt.record.key;
    (attempt.opened_ns(), key.ports, key.low, key.high)
}

fn keep<T>(kept: &mut VecDeque<T>, new: T, most: usize) {
    if kept.len() == most {
        kept.pop_front();
    }
    kept.push_back(new);
}

fn middle(samples: &VecDeque<u64>) -> Option<u64> {
    let mut sorted: Vec<u64> = samples.iter().copied().collect();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use handshake_agent::fake::{record, tcp, ticks};
    use handshake_agent::model::flow::{Flow, Standing};
    use handshake_common::abi::TcpRecord;
    use handshake_common::record::{Detail, Record, State};
    use handshake_common::verdict::Verdict;

    use super::{KEPT, Legs, Recent, SAMPLES};
    use crate::tui::filter::ListFilter;

    fn completed(initiator: &str, first_ns: u64, second_ns: u64) -> Record {
        let mut record = record(initiator, "10.0.0.2:443", State::Established);
        let (syn_ack_after, latest_after) = (ticks(first_ns), ticks(first_ns + second_ns));
        record.detail = Detail::Tcp(TcpRecord { syn_ack_after, latest_after, ..tcp(&record) });
        record
    }

    #[test]
    fn the_latest_are_first_and_the_oldest_are_dropped() {
        let mut recent = Recent::default();
        for at in 0..KEPT as u64 + 5 {
            let initiator = format!("10.0.{}.{}:1", at / 200, at % 200);
            recent.push(Flow::ended(
                record(&initiator, "10.0.0.2:443", State::Refused),
                Verdict::Refused,
                at,
            ));
        }
        let latest = recent.latest();
        assert_eq!(latest.len(), KEPT);
        assert_eq!((latest[0].moment_ns(), latest[KEPT - 1].moment_ns()), (KEPT as u64 + 4, 5));
        assert_eq!(recent.total(), KEPT as u64 + 5);
    }

    #[test]
    fn a_filter_keeps_a_rare_verdict_among_frequent_ones() {
        let mut recent = Recent::default();
        let refused = record("10.0.0.1:1", "10.0.0.2:443", State::Refused);
        recent.push(Flow::ended(refused, Verdict::Refused, 1));
        recent.filter_by(&ListFilter::parse("verdict:refused").expect("a verdict"));
        for at in 0..KEPT as u64 {
            recent.push(Flow::ended(completed("10.0.0.1:2", 1_000, 1_000), Verdict::Completed, at));
        }
        assert_eq!(recent.latest().len(), 1);
        // The interface is not known here, so the list searches it.
        recent.filter_by(&ListFilter::parse("eth0").expect("plain text"));
        assert_eq!(recent.latest().len(), 1, "one identity");
        recent.filter_by(&ListFilter::default());
        assert!(recent.latest().iter().all(|attempt| attempt.record.state == State::Established));
    }

    /// A failure is found after as many completions as there is room for, without a filter set before.
    #[test]
    fn failures_are_kept_apart() {
        let mut recent = Recent::default();
        recent.push(Flow::ended(record("10.0.0.1:1", "10.0.0.2:443", State::Refused), Verdict::Refused, 1));
        for at in 0..KEPT as u64 {
            recent.push(Flow::ended(completed("10.0.0.1:2", 1_000, 1_000), Verdict::Completed, at));
        }
        recent.filter_by(&ListFilter::parse("failures").expect("a word"));
        assert_eq!(recent.latest().len(), 1);
    }

    #[test]
    fn a_revised_attempt_appears_once_with_its_last_end() {
        let mut recent = Recent::default();
        recent.push(Flow::ended(record("10.0.0.1:1", "10.0.0.2:443", State::Refused), Verdict::Refused, 1));
        recent.push(Flow::ended(completed("10.0.0.1:1", 1_000, 1_000), Verdict::Completed, 2));
        let latest = recent.latest();
        assert_eq!(latest.len(), 1);
        assert_eq!(latest[0].ended.expect("it ended").standing, Standing::Tcp(Verdict::Completed));
    }

    #[test]
    fn a_services_times_are_medians_of_its_latest() {
        let mut recent = Recent::default();
        let service = "10.0.0.2:443".parse().expect("an address");
        assert_eq!(recent.legs(service), Legs::default());
        recent.push(Flow::ended(completed("10.0.0.1:1", 640_000_000, 640_000_000), Verdict::Completed, 0));
        for at in 1..=SAMPLES as u64 {
            let record = completed("10.0.0.1:1", at * 64_000, 6_400);
            recent.push(Flow::ended(record, Verdict::Completed, at));
        }
        let middle = (SAMPLES as u64 / 2 + 1) * 64_000;
        let legs = recent.legs(service);
        assert_eq!((legs.syn_to_syn_ack_ns, legs.syn_ack_to_ack_ns), (Some(middle), Some(6_400)));
    }
}
