//! Judges expectations by the measured figures. Pure.

use handshake_agent::model::metric::CONNECT_OF_ALL;
use handshake_agent::model::snapshot::Snapshot;

use super::expression::{Comparator, Expectation, ExpressionTerm, Figure, Fraction, Selection, Which};
use super::figures::{self, Figures, apply};
use super::measured::Measured;
use super::reason::Reason;

const SECOND_NS: u64 = 1_000_000_000;

/// What an expectation is judged by: a run, or two reports.
pub(crate) trait Evidence {
    /// The value of a term, in the base unit of its kind.
    ///
    /// # Errors
    ///
    /// The reason for which it is unavailable.
    fn value(&self, term: &ExpressionTerm) -> Result<Measured, Reason>;

    /// What a rate is the quotient of: the increase of a count, and the time of it in ns.
    ///
    /// # Errors
    ///
    /// The reason for which it is unavailable.
    fn rise(&self, of: &ExpressionTerm) -> Result<(Measured, u64), Reason>;

    /// The report whose figures stand for themselves.
    fn report(&self) -> &dyn Figures;

    /// Why nothing that was measured can be relied on.
    fn doubt(&self) -> Option<Reason>;

    /// Attempts of a figure's services that had a chance to connect, and how many of them did not.
    fn connected(&self, of: &Figure) -> (u64, u64) {
        let some = match &of.of {
            Selection::Services(services) => Some(self.report().times_of_services(services, of)),
            Selection::All | Selection::Workloads(_) => None,
        };
        let figure = |name: &str| {
            let path = format!("{CONNECT_OF_ALL}.{name}");
            match &some {
                None => self.report().figure(&path),
                Some(times) => times.as_ref().ok().and_then(|[chosen, _]| chosen.get(&path).copied()),
            }
        };
        (figure("count").unwrap_or(0), figure("not_connected").unwrap_or(0))
    }
}

/// The measured figures: snapshots at three moments of a run, with every service by name.
pub(crate) struct JudgedWindow {
    /// At the command's start.
    pub(crate) started: Snapshot,
    /// After the command's end.
    pub(crate) ended: Snapshot,
    /// After no attempt was opening any more; the report shows this one.
    pub(crate) settled: Snapshot,
}

/// The judgement of an expectation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Judgement {
    /// The expectation holds.
    Met,
    /// The expectation does not hold.
    Failed,
    /// It cannot be judged.
    Inconclusive(Reason),
}

/// A judgement without its reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It holds.
    Met,
    /// It does not hold.
    Failed,
    /// It cannot be judged.
    Inconclusive,
}

impl Outcome {
    /// In a summary.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Met => "MET",
            Self::Failed => "FAILED",
            Self::Inconclusive => "INCONCLUSIVE",
        }
    }
}

impl Judgement {
    /// The same without the reason.
    pub(crate) const fn outcome(&self) -> Outcome {
        match self {
            Self::Met => Outcome::Met,
            Self::Failed => Outcome::Failed,
            Self::Inconclusive(_) => Outcome::Inconclusive,
        }
    }
}

/// An expectation with its judgement.
pub(crate) struct Judged<'a> {
    /// The expectation.
    pub(crate) expectation: &'a Expectation,
    /// Its judgement.
    pub(crate) judgement: Judgement,
    /// What is known of the measured value, if it is available.
    pub(crate) measured: Option<Measured>,
    /// The value that it is compared with, if it is available.
    pub(crate) limit: Option<Measured>,
}

impl<'a> Judged<'a> {
    /// Judges an expectation.
    pub(crate) fn by(evidence: &dyn Evidence, expectation: &'a Expectation) -> Self {
        let (measured, limit) = (evidence.value(&expectation.left), evidence.value(&expectation.right));
        let judgement = match (&measured, &limit) {
            (Err(reason), _) | (Ok(_), Err(reason)) => Judgement::Inconclusive(reason.clone()),
            (Ok(measured), Ok(limit)) => {
                match (evidence.doubt(), measured.holds(expectation.comparison, *limit)) {
                    (Some(reason), _) => Judgement::Inconclusive(reason),
                    (None, Some(true)) => Judgement::Met,
                    (None, Some(false)) => Judgement::Failed,
                    (None, None) => Judgement::Inconclusive(undecided(evidence, expectation)),
                }
            }
        };
        Self { expectation, judgement, measured: measured.ok(), limit: limit.ok() }
    }

    /// Makes it inconclusive, unless it is already.
    pub(crate) fn doubt(&mut self, reason: Reason) {
        if !matches!(self.judgement, Judgement::Inconclusive(_)) {
            self.judgement = Judgement::Inconclusive(reason);
        }
    }

    /// Whether it is `attempts == 0`, and met: nothing was to run.
    pub(crate) fn wants_nothing(&self) -> bool {
        let Expectation { left, comparison, right, .. } = self.expectation;
        let names_attempts = |term: &ExpressionTerm| match term {
            ExpressionTerm::Figure(figure) => figure.metrics == ["tcp.attempts"],
            ExpressionTerm::Constant(_)
            | ExpressionTerm::Rate(_)
            | ExpressionTerm::Change(..)
            | ExpressionTerm::Of(..)
            | ExpressionTerm::Pair(..) => false,
        };
        let is_zero = |term: &ExpressionTerm| *term == ExpressionTerm::Constant(Fraction::ZERO);
        *comparison == Comparator::Equal
            && names_attempts(left)
            && is_zero(right)
            && self.judgement == Judgement::Met
    }
}

impl JudgedWindow {
    /// Whether no attempt and no UDP flow was seen.
    pub(crate) fn is_empty(&self) -> bool {
        self.settled.tcp.books.attempts == 0 && self.settled.udp.books.flows == 0
    }

    /// The command's running time, ns.
    pub(crate) fn ran_ns(&self) -> u64 {
        self.ended.now.ns.saturating_sub(self.started.now.ns)
    }

    /// The time of a snapshot by the wall clock as it was last, ns since the Unix epoch. The clock may have
    /// been set meanwhile, and the report's times must agree with each other.
    pub(crate) const fn wall_of(&self, snapshot: &Snapshot) -> u64 {
        self.settled.wall_of(snapshot.now.ns)
    }
}

impl Evidence for JudgedWindow {
    fn value(&self, term: &ExpressionTerm) -> Result<Measured, Reason> {
        match term {
            ExpressionTerm::Rate(of) => rate(self.rise(of)?),
            ExpressionTerm::Pair(left, operation, right) => {
                apply(self.value(left)?, *operation, (self.value(right)?, right), &self.settled)
            }
            ExpressionTerm::Constant(_)
            | ExpressionTerm::Figure(_)
            | ExpressionTerm::Change(..)
            | ExpressionTerm::Of(..) => figures::value(term, &self.settled),
        }
    }

    fn rise(&self, of: &ExpressionTerm) -> Result<(Measured, u64), Reason> {
        let (before, after) = (figures::value(of, &self.started)?, figures::value(of, &self.ended)?);
        Ok((after.minus(before).ok_or(Reason::TooLarge)?, self.ran_ns()))
    }

    fn report(&self) -> &dyn Figures {
        &self.settled
    }

    fn doubt(&self) -> Option<Reason> {
        (!self.settled.is_exact()).then_some(Reason::Inexact)
    }
}

/// Why it is not known on which side of the limit a value is.
fn undecided(evidence: &dyn Evidence, expectation: &Expectation) -> Reason {
    let sides = [&expectation.left, &expectation.right];
    if let Some(gap) = sides.into_iter().find_map(|term| figures::gap(term, evidence.report())) {
        return gap;
    }
    if sides.into_iter().any(|term| is_between_lower_bounds(term, evidence)) {
        return Reason::LowerBounds;
    }
    Reason::Undecided
}

/// Whether a term is a change whose both values are longer than something, and it is not known by how much.
fn is_between_lower_bounds(term: &ExpressionTerm, evidence: &dyn Evidence) -> bool {
    let ExpressionTerm::Change(of, _) = term else { return false };
    let is_open = |which| {
        let value = evidence.value(&ExpressionTerm::Of(which, of.clone()));
        value.is_ok_and(|value| value.least().is_some() && value.most().is_none())
    };
    is_open(Which::Old) && is_open(Which::New)
}

/// A rise per second.
pub(super) fn rate((rise, time_ns): (Measured, u64)) -> Result<Measured, Reason> {
    let seconds = Fraction::new(time_ns.into(), SECOND_NS.into()).filter(|time| !time.is_zero());
    rise.over(Measured::exactly(seconds.ok_or(Reason::NoTime)?)).ok_or(Reason::TooLarge)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use handshake_agent::fake::{Fake, SECOND, snapshot};
    use handshake_agent::model::snapshot::{FIRST_UDP_ROW, RunContext, Snapshot};
    use handshake_agent::owner::{Owner, OwnerBook};
    use handshake_common::abi::Counter;
    use handshake_common::flow::Side;
    use handshake_common::record::State;
    use handshake_common::verdict::Leg;

    use super::{Judged, JudgedWindow, Judgement, Measured, Reason};
    use crate::check::expression::{Expectation, Fraction};
    use crate::check::reason::NOTHING_RAN;
    use crate::check::tests::{load, standing};

    fn judgement(window: &JudgedWindow, text: &str) -> (Judgement, Option<Fraction>) {
        let expectation = Expectation::of_run(text).expect(text);
        let Judged { judgement, measured, .. } = Judged::by(window, &expectation);
        (judgement, measured.and_then(Measured::known))
    }

    #[test]
    fn an_expectation_is_met_if_it_holds_and_fails_otherwise() {
        let window = load(|fake| {
            fake.sample(Leg::Connect, 1_500_000, 99);
            fake.sample(Leg::Connect, 40_000_000, 1);
        });
        let table = [
            ("completed >= 1204", true),
            ("completed > 1204", false),
            ("attempts == 1967", true),
            ("attempts != 1967", false),
            ("tcp.refused <= 760", false),
            ("half_open == 2", true),
            ("half_open.no_ack < 3", true),
            ("half_open_expired == 0", true),
            ("completed / attempts >= 61.2%", true),
            ("completed / attempts >= 61.3%", false),
            ("completed / attempts == 1204 / 1967", true),
            ("completed + refused + half_open == attempts", true),
            ("attempts - (completed + refused) == half_open", true),
            ("1000 <= completed", true),
            ("completed >= attempts / 2", true),
            ("p50(connect of completed) < 2ms", true),
            ("p99(connect of completed) < 2ms", true),
            ("max(connect of completed) < 2ms", false),
            ("count(connect) == 100", true),
            ("latency.connect.p50_ns < 2 ms", true),
            ("p99(connect of completed) / p50(connect of completed) == 1", true),
            ("rate(completed) == 600/s", true),
            ("rate(completed + refused) > 980/s", true),
            ("rate(completed) / rate(attempts) > 60%", true),
            ("attempts{port=443} == 1206", true),
            ("attempts{port=443,address=10.0.0.3} == 202", true),
            ("completed{address=10.0.0.0/8} == 1204", true),
            ("refused{address=2001:db8::2} == 761", true),
            ("attempts{port=1-79} == 0", true),
            ("half_open{port=443} == 2", true),
            ("completed{port=443} / attempts{port=443} > 99%", true),
            ("udp.flows == 0", true),
        ];
        for (text, met) in table {
            let expected = if met { Judgement::Met } else { Judgement::Failed };
            assert_eq!(judgement(&window, text).0, expected, "{text}: {:?}", judgement(&window, text).1);
        }
    }

    /// 999 of 1000 is 99.9 %, but as a binary fraction a little less.
    #[test]
    fn rounding_does_not_decide() {
        let mut fake = Fake::new();
        fake.ended(0, Counter::Completed, 999);
        fake.ended(0, Counter::Refused, 1);
        let window = standing(&mut fake);
        assert_eq!(judgement(&window, "completed / attempts >= 99.9%").0, Judgement::Met);
        assert_eq!(judgement(&window, "completed / attempts > 99.9%").0, Judgement::Failed);
    }

    /// 26 of 30 attempts are half-open, 4 s old.
    #[test]
    fn a_percentile_counts_those_who_never_connected() {
        let stuck = |meddle: fn(&mut Fake)| {
            let mut fake = Fake::new();
            fake.ended(0, Counter::Completed, 4);
            fake.sample(Leg::Connect, 36_100, 4);
            (0..25).for_each(|_| {
                fake.open(0, State::SynSent, 4 * SECOND);
            });
            meddle(&mut fake);
            standing(&mut fake)
        };
        let waiting = stuck(|fake| {
            fake.open(0, State::SynSent, 4 * SECOND);
        });
        let table = [
            ("p50(connect) < 2ms", Some(false)),
            ("p99(connect) < 2ms", Some(false)),
            ("p99(connect) >= 3s", Some(true)),
            ("max(connect) > 10s", None),
            ("p99(connect) < 10s", None),
            ("2ms > p99(connect)", Some(false)),
            ("p99(connect of completed) < 2ms", Some(true)),
            ("latency.connect.p99_ns < 2ms", Some(true)),
            ("latency.connect_of_all.p99_ns < 2ms", Some(false)),
            ("count(connect) == 4", Some(true)),
            ("latency.connect_of_all.not_connected == 26", Some(true)),
            ("p99(connect) / p99(connect of completed) < 3", Some(false)),
        ];
        for (text, met) in table {
            let expected = match met {
                Some(true) => Judgement::Met,
                Some(false) => Judgement::Failed,
                None => Judgement::Inconclusive(Reason::Undecided),
            };
            assert_eq!(judgement(&waiting, text).0, expected, "{text}");
        }
        let refused = stuck(|fake| fake.ended(0, Counter::Refused, 1));
        for text in ["p99(connect) < 10h", "max(connect) == 36100ns"] {
            assert_eq!(judgement(&refused, text).0, Judgement::Failed, "{text}");
        }
        assert_eq!(judgement(&refused, "p99(connect) == p99.9(connect)").0, {
            Judgement::Inconclusive(Reason::Undecided)
        });
    }

    #[test]
    fn without_traffic_no_share_or_latency_is_met() {
        let window = standing(&mut Fake::new());
        let table = [
            ("completed / attempts >= 0%", Reason::OverNothing("attempts".to_owned())),
            ("completed / attempts < 50%", Reason::OverNothing("attempts".to_owned())),
            ("udp.answered / udp.flows != 2", Reason::OverNothing("udp.flows".to_owned())),
            ("p99(connect) < 1h", Reason::NoSample("p99(connect)".to_owned())),
            (
                "latency.syn_to_syn_ack.max_ns > 0ns",
                Reason::NoSample("latency.syn_to_syn_ack.max_ns".to_owned()),
            ),
            ("rate(completed) >= 0/s", Reason::NoTime),
            (
                "completed{port=80} / (attempts{port=80} + refused) <= 1",
                Reason::OverNothing("attempts{port=80} + refused".to_owned()),
            ),
        ];
        for (text, reason) in table {
            assert!(text.contains("rate") || reason.to_string().ends_with(NOTHING_RAN));
            assert_eq!(judgement(&window, text), (Judgement::Inconclusive(reason), None), "{text}");
        }
        assert_eq!(judgement(&window, "count(connect) == 0").0, Judgement::Met, "a count is known");
    }

    /// One service is quick, one slow, and one never answers.
    #[test]
    fn a_percentile_is_that_of_the_selected_services() {
        let services = |meddle: fn(&mut Fake)| {
            let mut fake = Fake::new();
            for (row, address) in [(1, "10.0.0.2:443"), (2, "10.0.0.3:5432"), (3, "10.0.0.4:25")] {
                fake.service(row, address);
            }
            fake.ended(1, Counter::Completed, 1_000);
            fake.connect(1, 1_000_000, 1_000);
            fake.ended(2, Counter::Completed, 10);
            fake.connect(2, 200_000_000, 10);
            (0..2).for_each(|_| {
                fake.open(3, State::SynSent, 4 * SECOND);
            });
            meddle(&mut fake);
            standing(&mut fake)
        };
        let window = services(|_| {});
        for (text, met) in [
            ("p90(connect) < 2ms", Some(true)),
            ("p99(connect{port=443}) < 2ms", Some(true)),
            ("p99(connect{port=5432}) < 2ms", Some(false)),
            ("p50(connect{address=10.0.0.3}) == 200ms", Some(true)),
            ("p50(connect{port=25}) < 2ms", Some(false)),
            ("p50(connect{port=25}) > 10s", None),
            ("p50(connect{address=10.0.0.0/8}) < 2ms", Some(true)),
            ("max(connect of completed{port=443-6000}) == 200ms", Some(true)),
            ("max(connect of completed{port=443}) <= 1.25ms", Some(true)),
            ("count(connect{port=443}) == 1000", Some(true)),
            ("count(connect{port=25}) == 0", Some(true)),
            ("latency.connect_of_all.not_connected{port=25} == 2", Some(true)),
        ] {
            let expected = match met {
                Some(true) => Judgement::Met,
                Some(false) => Judgement::Failed,
                None => Judgement::Inconclusive(Reason::Undecided),
            };
            assert_eq!(judgement(&window, text).0, expected, "{text}");
        }
        for text in ["p99(connect of completed{port=25})", "p99(connect{port=1})"] {
            let expected = Judgement::Inconclusive(Reason::NoSample(text.to_owned()));
            assert_eq!(judgement(&window, &format!("{text} < 2ms")).0, expected, "{text}");
        }
        // Attempts of services without a row may be those of any.
        let window = services(|fake| {
            fake.service(0, "0.0.0.0:0");
            fake.ended(0, Counter::Completed, 5);
            fake.connect(0, 1_000, 5);
        });
        let folded = Reason::Folded("p99(connect{port=443})".to_owned());
        assert_eq!(judgement(&window, "p99(connect{port=443}) < 2ms").0, Judgement::Inconclusive(folded));
        assert_eq!(judgement(&window, "count(connect{port=443}) >= 1000").0, Judgement::Met);
        let folded = Reason::Folded("count(connect{port=443})".to_owned());
        assert_eq!(judgement(&window, "count(connect{port=443}) == 1000").0, Judgement::Inconclusive(folded));
    }

    #[test]
    fn lost_data_makes_everything_inconclusive_but_keeps_the_value() {
        let window = load(|fake| fake.count(Counter::Untracked, 1));
        for text in ["completed >= 1000", "completed >= 2000"] {
            let expected = (Judgement::Inconclusive(Reason::Inexact), Some(Fraction::from(1_204_u64)));
            assert_eq!(judgement(&window, text), expected);
        }
    }

    #[test]
    fn a_figure_of_services_without_a_row_is_inconclusive() {
        let window = load(|fake| {
            fake.service(0, "0.0.0.0:0");
            fake.ended(0, Counter::Refused, 5);
        });
        let folded = |text: &str| Judgement::Inconclusive(Reason::Folded(text.to_owned()));
        for (text, figure) in [
            ("attempts{port=443} == 1206", "attempts{port=443}"),
            ("attempts{port=443} != 1211", "attempts{port=443}"),
            ("attempts{port=443} <= 1210", "attempts{port=443}"),
            ("attempts{port=443} > 1206", "attempts{port=443}"),
            ("refused{port=80} == 761", "refused{port=80}"),
            ("completed{port=443} / attempts{port=443} > 99.5%", "attempts{port=443}"),
            ("completed{port=1} / refused{port=1} >= 0%", "refused{port=1}"),
        ] {
            assert_eq!(judgement(&window, text).0, folded(figure), "{text}");
        }
    }

    /// The folded services have five refused attempts, and no other.
    #[test]
    fn a_figure_is_judged_where_the_services_without_a_row_change_nothing() {
        let window = load(|fake| {
            fake.service(0, "0.0.0.0:0");
            fake.ended(0, Counter::Refused, 5);
        });
        for (text, met) in [
            ("completed{port=443} == 1204", true),
            ("refused == 766", true),
            ("attempts{port=443} >= 1206", true),
            ("attempts{port=443} < 1212", true),
            ("attempts{port=443} <= 1205", false),
            ("attempts{port=443} > 1211", false),
            ("attempts{port=443} == 1212", false),
            ("attempts{port=443} != 1205", true),
            ("1206 <= attempts{port=443}", true),
            ("attempts - attempts{port=443} <= 766", true),
            ("completed{port=443} / attempts{port=443} > 99%", true),
            ("completed{port=443} / attempts{port=443} > 99.9%", false),
            ("refused{port=80} / attempts{port=443} < 64%", true),
            ("attempts{port=443} > refused{port=1} + 1200", true),
        ] {
            let expected = if met { Judgement::Met } else { Judgement::Failed };
            assert_eq!(judgement(&window, text).0, expected, "{text}");
        }
    }

    /// nginx accepted 10 and opened 4, of which one was refused; the owner of the group 3 is not known.
    fn workloads(meddle: impl Fn(&mut Fake)) -> JudgedWindow {
        let owner = |unit: &str| Owner {
            cgroup: format!("/system.slice/{unit}"),
            unit: Some(unit.to_owned()),
            container: None,
            pod: None,
        };
        let mut fake = Fake::new();
        fake.ended(0, Counter::Completed, 20);
        fake.workload(1, Side::Responder, &[(Counter::Completed, 10)]);
        fake.workload(1, Side::Initiator, &[(Counter::Completed, 3), (Counter::Refused, 1)]);
        fake.workload(2, Side::Initiator, &[(Counter::Completed, 5)]);
        meddle(&mut fake);
        let before = snapshot();
        let owners = OwnerBook::fixed([(1, owner("nginx.service")), (2, owner("curl.service"))]);
        let context = Arc::new(RunContext { owners, ..RunContext::clone(&before.context) });
        let mut now = || Snapshot::take(&mut fake, &context, None).expect("a fake never fails");
        JudgedWindow { started: before, ended: now(), settled: now() }
    }

    #[test]
    fn a_figure_is_that_of_the_selected_workloads() {
        let window = workloads(|_| {});
        for (text, met) in [
            ("completed{unit=curl.service} == 5", true),
            ("completed{unit=curl.service,side=responder} == 0", true),
            ("completed{unit=nginx.service,side=responder} == 10", true),
            (
                "completed{unit=nginx.service,side=initiator} / attempts{unit=nginx.service,side=initiator} > 75%",
                false,
            ),
            ("refused{cgroup=/system.slice} == 1", true),
            // Those of both sides, of which none or some are between two of them.
            ("completed{unit=nginx.service} >= 10", true),
            ("completed{unit=nginx.service} > 13", false),
            ("completed{cgroup=/system.slice,side=initiator} == 8", true),
            ("half_open{unit=curl.service} == 0", true),
            ("attempts{unit=never.service} == 0", true),
        ] {
            let expected = if met { Judgement::Met } else { Judgement::Failed };
            assert_eq!(judgement(&window, text).0, expected, "{text}: {:?}", judgement(&window, text).1);
        }
        let both = "completed{unit=nginx.service}".to_owned();
        let expected = Judgement::Inconclusive(Reason::BothSides(both));
        assert_eq!(judgement(&window, "completed{unit=nginx.service} == 13").0, expected);
        let text = "completed{unit=never.service} / attempts{unit=never.service} >= 0%";
        let nothing = Reason::OverNothing("attempts{unit=never.service}".to_owned());
        assert_eq!(judgement(&window, text).0, Judgement::Inconclusive(nothing));
    }

    #[test]
    fn a_figure_of_workloads_is_inconclusive_where_owners_are_not_known() {
        for meddle in
            [(|fake| fake.workload(3, Side::Initiator, &[(Counter::Refused, 2)])) as fn(&mut Fake), |fake| {
                fake.unowned(&[(Counter::Refused, 2)])
            }]
        {
            let window = workloads(meddle);
            let unowned = Judgement::Inconclusive(Reason::Unowned("refused{unit=curl.service}".to_owned()));
            assert_eq!(judgement(&window, "refused{unit=curl.service} == 0").0, unowned);
            for text in ["refused{unit=curl.service} <= 2", "completed{unit=curl.service} == 5"] {
                assert_eq!(judgement(&window, text).0, Judgement::Met, "{text}");
            }
            let text = "refused{unit=curl.service} / refused{unit=curl.service,side=responder} > 0";
            assert!(matches!(judgement(&window, text).0, Judgement::Inconclusive(_)), "{text}");
        }
        // The group 3 has begun nothing that it was asked.
        let window = workloads(|fake| fake.workload(3, Side::Initiator, &[(Counter::Refused, 2)]));
        assert_eq!(judgement(&window, "refused{unit=curl.service,side=responder} == 0").0, Judgement::Met);
        let mut fake = Fake::new();
        fake.ended(0, Counter::Completed, 20);
        let unknown = Reason::NoOwner("completed{pod=web-1}".to_owned());
        let window = standing(&mut fake);
        assert_eq!(judgement(&window, "completed{pod=web-1} == 0").0, Judgement::Inconclusive(unknown));
        let nothing = standing(&mut Fake::new());
        assert_eq!(judgement(&nothing, "completed{pod=web-1} == 0").0, Judgement::Met);
    }

    #[test]
    fn udp_flows_are_counted_per_service() {
        let mut fake = Fake::new();
        fake.service(FIRST_UDP_ROW + 1, "10.0.0.2:53");
        fake.gauge(FIRST_UDP_ROW + 1, Counter::UdpFlows, 3);
        fake.gauge(FIRST_UDP_ROW + 1, Counter::UdpAnswered, 3);
        let window = standing(&mut fake);
        assert_eq!(judgement(&window, "udp.answered{port=53} / udp.flows{port=53} > 99%").0, Judgement::Met);
        assert_eq!(judgement(&window, "attempts{port=53} == 0").0, Judgement::Met, "TCP had none there");
    }
}
