//! Detects a half-open surge: a service with more and more half-open attempts, or all services together, over
//! which an attack or a broken return path may be spread. Pure.
//!
//! SYNs are not counted, because busy clients send many as well, and their attempts complete. The measure is
//! how many attempts become half-open at T1, compared with those that complete. What becomes half-open began
//! T1 earlier, so it is compared with what completed then: at the end of a load nothing completes any more
//! beside the last failures. Attempts of a flood that overflows the table are evicted before T1, so attempts
//! that were superseded, expired or evicted while open count as well, and what completes now is compared with
//! them.
//!
//! ```text
//! calm ──── 64 outstanding, growth of 8 per second and 1 per 4 completions ──────▶ raised
//! raised ── for 5 s no new attempts that stay open ──────────────────────────────▶ calm
//! ```

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;

use handshake_agent::model::snapshot::{ServiceBooks, Snapshot, TcpBooks};
use handshake_common::verdict::{Cause, Verdict};

use super::history::stuck;

/// Least outstanding attempts of a surge: half of the smallest SYN backlog of a listener in Linux (128).
const OUTSTANDING: u64 = 64;
/// Least growth of a surge, attempts per second.
const INFLOW: u64 = 8;
/// The alarm is raised if at least one of this many decided attempts is stuck ...
const RAISED_BY_ONE_OF: u64 = 5;
/// ... and prolonged while at least one of this many new attempts stays open.
const FED_BY_ONE_OF: u64 = 10;
/// The alarm is cleared this time after it was last prolonged, ns. It is shown for at least this time.
const QUIET_NS: u64 = 5_000_000_000;

/// The changes of a service in one interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Inflow {
    /// Length of the interval, ns.
    pub(crate) elapsed_ns: u64,
    /// Attempts half-open at the interval's end.
    pub(crate) half_open: u64,
    /// Attempts that became half-open or ended so in the interval.
    pub(crate) stuck: u64,
    /// Attempts that began in the interval and neither completed nor failed.
    pub(crate) begun: u64,
    /// Attempts that completed in the interval.
    pub(crate) completed: u64,
    /// Attempts that completed T1 earlier, in as long a time.
    pub(crate) completed_before: u64,
}

impl Inflow {
    /// The changes between two states of the books; `completed_before` completed T1 earlier.
    fn between(before: &TcpBooks, now: &TcpBooks, elapsed_ns: u64, completed_before: u64) -> Self {
        let waiting = |books: &TcpBooks| stuck(books) + books.verdict(Verdict::Opening);
        Self {
            elapsed_ns,
            half_open: now.verdict(Verdict::HalfOpen),
            stuck: stuck(now).saturating_sub(stuck(before)),
            begun: waiting(now).saturating_sub(waiting(before)),
            completed: now.verdict(Verdict::Completed).saturating_sub(before.verdict(Verdict::Completed)),
            completed_before,
        }
    }

    /// Attempts that are half-open now, or that were evicted in the interval if those are more.
    fn outstanding(&self) -> u64 {
        self.half_open.max(self.stuck)
    }

    fn is_surge(&self) -> bool {
        self.outstanding() >= OUTSTANDING && self.is_much(self.stuck, RAISED_BY_ONE_OF, self.beside())
    }

    fn feeds(&self) -> bool {
        self.is_much(self.begun, FED_BY_ONE_OF, self.completed)
    }

    /// What completed beside the stuck attempts: when they began, or now if that is more.
    fn beside(&self) -> u64 {
        self.completed.max(self.completed_before)
    }

    /// Whether `count` is at least [`INFLOW`] per second, and at least one `share`th of itself and of what
    /// `completed`.
    fn is_much(&self, count: u64, share: u64, completed: u64) -> bool {
        let fast =
            u128::from(count) * 1_000_000_000 >= u128::from(INFLOW) * u128::from(self.elapsed_ns.max(1));
        fast && u128::from(count) * u128::from(share) >= u128::from(count) + u128::from(completed)
    }
}

/// The alarm of a service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Alarm {
    /// There is no surge.
    #[default]
    Calm,
    /// There is a surge.
    Raised {
        /// Time of the first interval with the surge, on the records' clock.
        since_ns: u64,
        /// Time of the last interval with new attempts that stayed open, on the records' clock.
        fed_ns: u64,
    },
}

/// The state of an alarm after an interval that ended at `now_ns`.
pub(crate) fn judge(alarm: Alarm, inflow: &Inflow, now_ns: u64) -> Alarm {
    match alarm {
        Alarm::Calm if inflow.is_surge() => Alarm::Raised { since_ns: now_ns, fed_ns: now_ns },
        Alarm::Calm => Alarm::Calm,
        Alarm::Raised { since_ns, .. } if inflow.feeds() => Alarm::Raised { since_ns, fed_ns: now_ns },
        Alarm::Raised { fed_ns, .. } if now_ns.saturating_sub(fed_ns) < QUIET_NS => alarm,
        // Attempts that began before the quiet time are still reaching T1: the alarm would be raised again at
        // once.
        Alarm::Raised { .. } if inflow.is_surge() => alarm,
        Alarm::Raised { .. } => Alarm::Calm,
    }
}

/// A surge as shown in the banner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Surge {
    /// The responder; `None` for all services together.
    pub(crate) service: Option<SocketAddr>,
    /// Attempts that are half-open now, or that were evicted in the last interval if those are more.
    pub(crate) outstanding: u64,
    /// Attempts that became stuck in the last interval.
    pub(crate) stuck: u64,
    /// Attempts that completed beside them.
    pub(crate) completed: u64,
    /// The most frequent cause, if one is known.
    pub(crate) cause: Option<Cause>,
    /// When the alarm was raised, on the records' clock.
    pub(crate) since_ns: u64,
    /// Number of other services with a surge.
    pub(crate) others: usize,
}

/// The alarms of the services, and of all together. The row of the services that are not listed has none of
/// its own: what a service had counted goes there with its row.
#[derive(Debug, Default)]
pub(crate) struct SurgeDetector {
    raised: HashMap<Option<SocketAddr>, Alarm>,
    completions: Completions,
}

impl SurgeDetector {
    /// Updates the alarms by the interval between two snapshots, and returns the worst surge: that of a
    /// service, unless most of what is outstanding is elsewhere.
    pub(crate) fn observe(&mut self, before: &Snapshot, now: &Snapshot) -> Option<Surge> {
        let known: HashMap<Option<SocketAddr>, &TcpBooks> = tcp(before).collect();
        let elapsed_ns = now.now.ns.saturating_sub(before.now.ns);
        let t1_ns = now.clocks.half_open_after_ns;
        self.completions.note(before, t1_ns);
        let began = [before, now].map(|snapshot| snapshot.now.ns.saturating_sub(t1_ns));
        let mut raised = HashMap::new();
        let (mut worst, mut all): (Option<Surge>, Option<Surge>) = (None, None);
        for (service, books) in tcp(now) {
            let earlier = known.get(&service).copied().copied().unwrap_or_default();
            let inflow =
                Inflow::between(&earlier, books, elapsed_ns, self.completions.between(service, began));
            let alarm = self.raised.get(&service).copied().unwrap_or_default();
            let alarm = judge(alarm, &inflow, now.now.ns);
            if let Alarm::Raised { since_ns, .. } = alarm {
                raised.insert(service, alarm);
                let cause = cause(books, &earlier);
                let surge = Surge { cause, since_ns, ..Surge::of(service, &inflow) };
                let place = if service.is_some() { &mut worst } else { &mut all };
                *place =
                    [place.take(), Some(surge)].into_iter().flatten().max_by_key(|surge| surge.outstanding);
            }
        }
        self.raised = raised;
        let named = self.raised.keys().flatten().count();
        match (worst, all) {
            (Some(worst), Some(all)) if 2 * worst.outstanding < all.outstanding => Some(all),
            (Some(worst), _) => Some(Surge { others: named - 1, ..worst }),
            (None, all) => all,
        }
    }
}

impl Surge {
    fn of(service: Option<SocketAddr>, inflow: &Inflow) -> Self {
        let (stuck, completed, outstanding) = (inflow.stuck, inflow.beside(), inflow.outstanding());
        Self { service, outstanding, stuck, completed, cause: None, since_ns: 0, others: 0 }
    }
}

/// The completions of each listed service and of all together, as far back as T1 and an interval.
#[derive(Debug, Default)]
struct Completions {
    points: VecDeque<(u64, HashMap<Option<SocketAddr>, u64>)>,
}

impl Completions {
    /// Most points within T1: of a long one, few enough to keep.
    const MOST: u64 = 32;

    fn note(&mut self, snapshot: &Snapshot, t1_ns: u64) {
        let now_ns = snapshot.now.ns;
        if self.points.back().is_some_and(|(last, _)| now_ns.saturating_sub(*last) < t1_ns / Self::MOST) {
            return;
        }
        let counts = tcp(snapshot).map(|(service, books)| (service, books.verdict(Verdict::Completed)));
        self.points.push_back((now_ns, counts.collect()));
        // The interval that ended T1 before the next snapshot began after the second point.
        while self.points.get(1).is_some_and(|(next, _)| now_ns.saturating_sub(*next) >= t1_ns) {
            self.points.pop_front();
        }
    }

    /// The completions of a service between two times; those between two points are spread evenly.
    fn between(&self, service: Option<SocketAddr>, [from, to]: [u64; 2]) -> u64 {
        let before = self.points.iter().rfind(|(ns, _)| *ns <= from).or_else(|| self.points.front());
        let after = self.points.iter().find(|(ns, _)| *ns >= to).or_else(|| self.points.back());
        let (Some((from_ns, before)), Some((to_ns, after))) = (before, after) else { return 0 };
        let count = |counts: &HashMap<_, u64>| counts.get(&service).copied().unwrap_or(0);
        let completed = u128::from(count(after).saturating_sub(count(before)));
        let (asked, known) = (to.saturating_sub(from), to_ns.saturating_sub(*from_ns));
        let spread = completed * u128::from(asked.min(known)) / u128::from(known.max(1));
        u64::try_from(spread).unwrap_or(u64::MAX)
    }
}

/// The books of each listed service, and those of all together.
fn tcp(snapshot: &Snapshot) -> impl Iterator<Item = (Option<SocketAddr>, &TcpBooks)> {
    let listed = snapshot.services.iter().filter_map(|row| match &row.books {
        ServiceBooks::Tcp(books) => Some((Some(row.service?), books)),
        ServiceBooks::Udp(_) => None,
    });
    listed.chain([(None, &snapshot.tcp.books)])
}

/// The most frequent cause of attempts that are half-open now or have expired in the interval.
fn cause(now: &TcpBooks, before: &TcpBooks) -> Option<Cause> {
    let count = |cause: Cause| {
        let expired = now
            .by_cause(Verdict::HalfOpenExpired)
            .of(cause)
            .saturating_sub(before.by_cause(Verdict::HalfOpenExpired).of(cause));
        now.by_cause(Verdict::HalfOpen).of(cause) + expired
    };
    Cause::ALL.into_iter().filter(|cause| count(*cause) != 0).max_by_key(|cause| count(*cause))
}

#[cfg(test)]
mod tests {
    use handshake_agent::fake::SECOND;

    use super::{Alarm, Inflow, judge};

    /// The changes of one second: half-open at its end, stuck, begun and still open, completed.
    const fn second(half_open: u64, stuck: u64, begun: u64, completed: u64) -> Inflow {
        Inflow { elapsed_ns: SECOND, half_open, stuck, begun, completed, completed_before: completed }
    }

    #[test]
    fn stuck_attempts_raise_the_alarm_and_many_syns_do_not() {
        let table = [
            ("nothing", second(0, 0, 0, 0), false),
            ("busy clients, all complete", second(0, 0, 0, 50_000), false),
            ("busy clients, more of them each second", second(0, 0, 10_000, 40_000), false),
            ("busy clients on a lossy line", second(900, 300, 300, 50_000), false),
            ("one waiting client", second(1, 1, 1, 0), false),
            ("a few waiting clients", second(500, 3, 3, 0), false),
            ("the rest of an old flood", second(20_000, 0, 0, 10), false),
            ("spoofed sources", second(1_000, 1_000, 1_000, 0), true),
            ("a slow flood", second(64, 10, 10, 0), true),
            ("spoofed sources beside busy clients", second(6_000, 2_000, 2_000, 8_000), true),
            ("a flood that the table cannot hold", second(0, 500_000, 500_000, 100), true),
            ("the ACKs of half of the clients are lost", second(600, 200, 200, 200), true),
        ];
        for (what, inflow, raised) in table {
            let alarm = judge(Alarm::Calm, &inflow, 7 * SECOND);
            assert_eq!(alarm != Alarm::Calm, raised, "{what}");
        }
    }

    /// A flood from second 1 to 10 with a T1 of 3 s: the seconds at whose end the alarm is raised.
    #[test]
    fn the_alarm_is_raised_at_t1_and_cleared_after_the_flood() {
        let flood = |at: u64| {
            let begun = if (1..=10).contains(&at) { 1_000 } else { 0 };
            let stuck = if (4..=13).contains(&at) { 1_000 } else { 0 };
            second(1_000 * at.saturating_sub(3).min(10), stuck, begun, 3)
        };
        let mut alarm = Alarm::Calm;
        let raised: Vec<u64> = (0..=20)
            .filter(|at| {
                alarm = judge(alarm, &flood(*at), at * SECOND);
                alarm != Alarm::Calm
            })
            .collect();
        assert_eq!(raised, (4..=14).collect::<Vec<_>>());
    }

    #[test]
    fn the_alarm_of_a_burst_lasts_five_seconds() {
        let raised = judge(Alarm::Calm, &second(300, 300, 0, 0), 0);
        let quiet = second(300, 0, 0, 0);
        assert_eq!(judge(raised, &quiet, 5 * SECOND - 1), raised);
        assert_eq!(judge(raised, &quiet, 5 * SECOND), Alarm::Calm);
    }

    /// With a longer T1, attempts that became stuck after the flood keep the alarm raised, but do not prolong
    /// it.
    #[test]
    fn the_alarm_does_not_flap_while_the_last_attempts_reach_t1() {
        let raised = judge(Alarm::Calm, &second(300, 300, 300, 0), 0);
        assert_eq!(judge(raised, &second(600, 300, 0, 0), 6 * SECOND), raised);
        assert_eq!(judge(raised, &second(600, 0, 0, 0), 7 * SECOND), Alarm::Calm);
    }

    /// The last failures of a load become half-open when nothing completes beside them any more.
    #[test]
    fn what_is_stuck_is_compared_with_what_completed_when_it_began() {
        let tail = Inflow { completed_before: 14_000, ..second(1_500, 490, 0, 0) };
        assert_eq!(judge(Alarm::Calm, &tail, 0), Alarm::Calm);
        let outage = Inflow { completed_before: 0, ..tail };
        assert_ne!(judge(Alarm::Calm, &outage, 0), Alarm::Calm);
        let overflow = Inflow { completed: 14_000, ..outage };
        assert_eq!(judge(Alarm::Calm, &overflow, 0), Alarm::Calm, "evicted before T1");
    }

    /// The limit of growth does not depend on the interval's length.
    #[test]
    fn growth_is_per_second() {
        let short = |stuck| Inflow { elapsed_ns: SECOND / 10, ..second(100, stuck, 0, 0) };
        assert_eq!(judge(Alarm::Calm, &short(0), 0), Alarm::Calm);
        assert_ne!(judge(Alarm::Calm, &short(1), 0), Alarm::Calm);
    }
}
