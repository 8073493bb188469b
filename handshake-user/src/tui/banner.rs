//! A half-open surge: a service that keeps more and more attempts half-open. Pure.
//!
//! Never by counting SYNs: busy clients send many too, and theirs complete. What counts is how many attempts have come to
//! nothing for T1 or longer and go on becoming more, beside those that complete. A flood that overflows the table is
//! pushed out before it is T1 old: what was superseded, expired or evicted while open counts as well.
//!
//! ```text
//! calm ──── 64 outstanding, 8 a second more, one for every four that complete ────▶ raised
//! raised ── nothing new begins and stays open for 5 s ────────────────────────────▶ calm
//! ```

use std::collections::HashMap;
use std::net::SocketAddr;

use handshake_agent::model::snapshot::{Books, ServiceBooks, Snapshot};
use handshake_common::verdict::{Cause, Verdict};

use super::history::stuck;

/// Fewer outstanding are no surge: half of the smallest SYN backlog that Linux gives a listener (128).
const OUTSTANDING: u64 = 64;
/// Slower growth is no surge, a second.
const INFLOW: u64 = 8;
/// Raised when of this many attempts that got past opening one at least is stuck ...
const RAISED_BY_ONE_OF: u64 = 5;
/// ... and fed while of this many that began one at least stays open.
const FED_BY_ONE_OF: u64 = 10;
/// Cleared when it has not been fed for this long; shown as long at least.
const QUIET_NS: u64 = 5_000_000_000;

/// What one interval did to a service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Inflow {
    /// Its length, ns.
    pub(crate) elapsed_ns: u64,
    /// Half-open at its end.
    pub(crate) half_open: u64,
    /// Attempts that became half-open in it, or ended so.
    pub(crate) stuck: u64,
    /// Attempts that began in it and neither completed nor failed.
    pub(crate) begun: u64,
    /// Attempts that completed in it.
    pub(crate) completed: u64,
}

impl Inflow {
    /// From the books before to the books now.
    fn between(before: &Books, now: &Books, elapsed_ns: u64) -> Self {
        let waiting = |books: &Books| stuck(books) + books.verdict(Verdict::Opening);
        Self {
            elapsed_ns,
            half_open: now.verdict(Verdict::HalfOpen),
            stuck: stuck(now).saturating_sub(stuck(before)),
            begun: waiting(now).saturating_sub(waiting(before)),
            completed: now.verdict(Verdict::Completed).saturating_sub(before.verdict(Verdict::Completed)),
        }
    }

    /// Half-open now, or pushed out meanwhile.
    fn outstanding(&self) -> u64 {
        self.half_open.max(self.stuck)
    }

    fn is_surge(&self) -> bool {
        self.outstanding() >= OUTSTANDING && self.is_much(self.stuck, RAISED_BY_ONE_OF)
    }

    fn feeds(&self) -> bool {
        self.is_much(self.begun, FED_BY_ONE_OF)
    }

    /// Is `count` at least [`INFLOW`] a second, and one of `share` beside those that completed?
    fn is_much(&self, count: u64, share: u64) -> bool {
        let fast =
            u128::from(count) * 1_000_000_000 >= u128::from(INFLOW) * u128::from(self.elapsed_ns.max(1));
        fast && u128::from(count) * u128::from(share) >= u128::from(count) + u128::from(self.completed)
    }
}

/// Whether a service is in a surge.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Alarm {
    /// It is not.
    #[default]
    Calm,
    /// It is.
    Raised {
        /// From when on.
        since_ns: u64,
        /// When something new last began and stayed open.
        fed_ns: u64,
    },
}

/// What an interval that ended at `now_ns` makes of an alarm.
pub(crate) fn judge(alarm: Alarm, inflow: &Inflow, now_ns: u64) -> Alarm {
    match alarm {
        Alarm::Calm if inflow.is_surge() => Alarm::Raised { since_ns: now_ns, fed_ns: now_ns },
        Alarm::Calm => Alarm::Calm,
        Alarm::Raised { since_ns, .. } if inflow.feeds() => Alarm::Raised { since_ns, fed_ns: now_ns },
        Alarm::Raised { fed_ns, .. } if now_ns.saturating_sub(fed_ns) < QUIET_NS => alarm,
        // Those that began before it went quiet are still reaching T1: it would be raised at once again.
        Alarm::Raised { .. } if inflow.is_surge() => alarm,
        Alarm::Raised { .. } => Alarm::Calm,
    }
}

/// A surge as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Surge {
    /// The responder; `None`: services without a row of their own.
    pub(crate) service: Option<SocketAddr>,
    /// Half-open there now, or given up in the last interval where the table has no room for them.
    pub(crate) outstanding: u64,
    /// Attempts that became stuck in the last interval, and those that completed.
    pub(crate) stuck: u64,
    /// See above.
    pub(crate) completed: u64,
    /// Why, where it is known.
    pub(crate) cause: Option<Cause>,
    /// Since when it is raised, ns since the Unix epoch.
    pub(crate) since_ns: u64,
    /// How many other services are in a surge.
    pub(crate) others: usize,
}

/// Watches all services.
#[derive(Debug, Default)]
pub(crate) struct SurgeDetector {
    raised: HashMap<Option<SocketAddr>, Alarm>,
}

impl SurgeDetector {
    /// Looks at the interval between two snapshots; the worst surge, if there is one.
    pub(crate) fn observe(&mut self, before: &Snapshot, now: &Snapshot) -> Option<Surge> {
        let known: HashMap<Option<SocketAddr>, &Books> = tcp(before).collect();
        let elapsed_ns = now.taken_at_ns.saturating_sub(before.taken_at_ns);
        let mut raised = HashMap::new();
        let mut worst: Option<Surge> = None;
        for (service, books) in tcp(now) {
            let earlier = known.get(&service).copied().copied().unwrap_or_default();
            let inflow = Inflow::between(&earlier, books, elapsed_ns);
            let alarm = self.raised.get(&service).copied().unwrap_or_default();
            let alarm = judge(alarm, &inflow, now.taken_at_ns);
            if let Alarm::Raised { since_ns, .. } = alarm {
                raised.insert(service, alarm);
                let cause = cause(books, &earlier);
                let surge = Surge { cause, since_ns, ..Surge::of(service, &inflow) };
                worst = [worst, Some(surge)].into_iter().flatten().max_by_key(|surge| surge.outstanding);
            }
        }
        self.raised = raised;
        worst.map(|surge| Surge { others: self.raised.len().saturating_sub(1), ..surge })
    }
}

impl Surge {
    fn of(service: Option<SocketAddr>, inflow: &Inflow) -> Self {
        let Inflow { stuck, completed, .. } = *inflow;
        let outstanding = inflow.outstanding();
        Self { service, outstanding, stuck, completed, cause: None, since_ns: 0, others: 0 }
    }
}

fn tcp(snapshot: &Snapshot) -> impl Iterator<Item = (Option<SocketAddr>, &Books)> {
    snapshot.services.iter().filter_map(|row| match &row.books {
        ServiceBooks::Tcp(books) => Some((row.service, books)),
        ServiceBooks::Udp(_) => None,
    })
}

/// The cause of most of what is half-open, or has expired since.
fn cause(now: &Books, before: &Books) -> Option<Cause> {
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

    /// A second of a service's life: half-open at its end, stuck, begun and left open, completed.
    const fn second(half_open: u64, stuck: u64, begun: u64, completed: u64) -> Inflow {
        Inflow { elapsed_ns: SECOND, half_open, stuck, begun, completed }
    }

    #[test]
    fn many_syns_are_no_surge_and_a_few_stuck_ones_are() {
        let table = [
            ("nothing", second(0, 0, 0, 0), false),
            ("busy clients, all complete", second(0, 0, 0, 50_000), false),
            ("busy clients, more of them each second", second(0, 0, 10_000, 40_000), false),
            ("busy clients on a lossy line", second(900, 300, 300, 50_000), false),
            ("one client that waits", second(1, 1, 1, 0), false),
            ("a few that wait, for long", second(500, 3, 3, 0), false),
            ("what an old flood left", second(20_000, 0, 0, 10), false),
            ("spoofed sources", second(1_000, 1_000, 1_000, 0), true),
            ("a slow flood", second(64, 10, 10, 0), true),
            ("spoofed sources beside busy clients", second(6_000, 2_000, 2_000, 8_000), true),
            ("a flood that the table cannot hold", second(0, 500_000, 500_000, 100), true),
            ("half of the clients lose their way back", second(600, 200, 200, 200), true),
        ];
        for (what, inflow, raised) in table {
            let alarm = judge(Alarm::Calm, &inflow, 7 * SECOND);
            assert_eq!(alarm != Alarm::Calm, raised, "{what}");
        }
    }

    /// A flood from second 0 to 10 with a T1 of 3 s, then another: what each second's end says.
    #[test]
    fn it_is_raised_at_t1_and_cleared_five_seconds_after_the_last_syn() {
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
    fn a_burst_is_shown_for_five_seconds() {
        let raised = judge(Alarm::Calm, &second(300, 300, 0, 0), 0);
        let quiet = second(300, 0, 0, 0);
        assert_eq!(judge(raised, &quiet, 5 * SECOND - 1), raised);
        assert_eq!(judge(raised, &quiet, 5 * SECOND), Alarm::Calm);
    }

    /// Stuck attempts that began ten seconds ago, of a longer T1, neither feed it nor let it flap.
    #[test]
    fn it_does_not_flap_while_the_last_ones_reach_t1() {
        let raised = judge(Alarm::Calm, &second(300, 300, 300, 0), 0);
        assert_eq!(judge(raised, &second(600, 300, 0, 0), 6 * SECOND), raised);
        assert_eq!(judge(raised, &second(600, 0, 0, 0), 7 * SECOND), Alarm::Calm);
    }

    /// Short intervals make no alarm of what long ones would not.
    #[test]
    fn growth_is_a_second() {
        let short = |stuck| Inflow { elapsed_ns: SECOND / 10, ..second(100, stuck, 0, 0) };
        assert_eq!(judge(Alarm::Calm, &short(0), 0), Alarm::Calm);
        assert_ne!(judge(Alarm::Calm, &short(1), 0), Alarm::Calm);
    }
}
