//! Judges expectations by the measured figures. Pure.

use std::cmp::Ordering;
use std::fmt;

use handshake_agent::model::metric::{METRICS, SERVICE};
use handshake_agent::model::snapshot::Snapshot;

use super::expression::{Comparator, Expectation, ExpressionTerm, Figure, Fraction, Operation};

/// Shown where a figure is missing because there was no traffic, which must not count as success.
const NOTHING_RAN: &str = "a gate cannot pass when nothing ran";
const SECOND_NS: u64 = 1_000_000_000;

/// The measured figures: snapshots at three moments of a run, with every service by name.
pub(crate) struct JudgedWindow {
    /// At the command's start.
    pub(crate) started: Snapshot,
    /// After the command's end.
    pub(crate) ended: Snapshot,
    /// After no attempt was opening any more; the report shows this one.
    pub(crate) settled: Snapshot,
}

/// Why a figure or a judgement is unavailable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// The report is not exact.
    Inexact,
    /// A share whose divisor, named here, is 0.
    OverNothing(String),
    /// A percentile, named here, without a sample.
    NoSample(String),
    /// A figure, named here, that services without a row of their own may contribute to, and the answer
    /// depends on how much.
    Folded(String),
    /// The command took no time.
    NoTime,
    /// A value is out of range.
    TooLarge,
    /// A signal arrived, or an interface was lost.
    CutShort,
    /// No attempt and no UDP flow was seen, and that was not allowed.
    NothingRan,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inexact => f.write_str("data was lost, the report is INEXACT"),
            Self::OverNothing(divisor) => write!(f, "{divisor} is 0: {NOTHING_RAN}"),
            Self::NoSample(figure) => write!(f, "{figure} has no sample: {NOTHING_RAN}"),
            Self::Folded(figure) => {
                write!(f, "there are too many services to count each, and {figure} may be among the others")
            }
            Self::NoTime => f.write_str("no time passed, so there is no rate"),
            Self::TooLarge => f.write_str("a value is out of range"),
            Self::CutShort => f.write_str("the check was cut short"),
            Self::NothingRan => {
                f.write_str("nothing ran: no attempt and no UDP flow was seen (--allow-nothing)")
            }
        }
    }
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

/// An expectation with its judgement.
pub(crate) struct Judged<'a> {
    /// The expectation.
    pub(crate) expectation: &'a Expectation,
    /// Its judgement.
    pub(crate) judgement: Judgement,
    /// The measured value, if it is known.
    pub(crate) measured: Option<Fraction>,
    /// The least and the most that it may be, where services without a row may be a part of it.
    pub(crate) bounds: Option<(Fraction, Fraction)>,
    /// The value that it is compared with, if it is known.
    pub(crate) limit: Option<Fraction>,
}

/// What the value of a term may be.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Range {
    least: Fraction,
    most: Fraction,
    /// The figure for which the value is not known; `None` where it is.
    folded: Option<String>,
}

impl Range {
    fn one(value: impl Into<Fraction>) -> Self {
        let value = value.into();
        Self { least: value, most: value, folded: None }
    }

    /// The value, if there is only one.
    ///
    /// # Errors
    ///
    /// [`Reason::Folded`].
    fn known(&self) -> Result<Fraction, Reason> {
        match &self.folded {
            None => Ok(self.least),
            Some(figure) => Err(Reason::Folded(figure.clone())),
        }
    }

    fn bounds(&self) -> Option<(Fraction, Fraction)> {
        self.folded.as_ref().map(|_| (self.least, self.most))
    }

    /// Whether the comparison holds with each value that the sides may have; `None` if that depends.
    fn compare(&self, comparison: Comparator, other: &Self) -> Option<bool> {
        let can_be = |order: Ordering| match order {
            Ordering::Less => self.least < other.most,
            Ordering::Equal => self.least <= other.most && self.most >= other.least,
            Ordering::Greater => self.most > other.least,
        };
        let all = [Ordering::Less, Ordering::Equal, Ordering::Greater];
        let mut possible =
            all.into_iter().filter(|order| can_be(*order)).map(|order| comparison.holds(order));
        let first = possible.next()?;
        possible.all(|holds| holds == first).then_some(first)
    }

    /// The result of an operation.
    ///
    /// # Errors
    ///
    /// The divisor is or may be 0, and [`Reason::TooLarge`].
    fn combined(self, operation: Operation, other: Self, divisor: &ExpressionTerm) -> Result<Self, Reason> {
        let corners = match operation {
            Operation::Plus => [self.least.plus(other.least), self.most.plus(other.most)],
            Operation::Minus => [self.least.minus(other.most), self.most.minus(other.least)],
            Operation::Over => return self.over(other, divisor),
        };
        Self::between(&corners, self.folded.or(other.folded))
    }

    fn over(self, other: Self, divisor: &ExpressionTerm) -> Result<Self, Reason> {
        if other.least <= Fraction::ZERO && other.most >= Fraction::ZERO {
            other.known()?;
            return Err(Reason::OverNothing(divisor.to_string()));
        }
        let corners = [
            self.least.over(other.least),
            self.least.over(other.most),
            self.most.over(other.least),
            self.most.over(other.most),
        ];
        Self::between(&corners, self.folded.or(other.folded))
    }

    /// From the least of these values to the largest.
    fn between(values: &[Option<Fraction>], folded: Option<String>) -> Result<Self, Reason> {
        let values: Option<Vec<Fraction>> = values.iter().copied().collect();
        let values = values.ok_or(Reason::TooLarge)?;
        let (least, most) = (values.iter().min(), values.iter().max());
        let (least, most) = least.zip(most).ok_or(Reason::TooLarge)?;
        Ok(Self { least: *least, most: *most, folded })
    }
}

impl Judged<'_> {
    /// Whether it is `attempts == 0`, and met: nothing was to run.
    pub(crate) fn wants_nothing(&self) -> bool {
        let Expectation { left, comparison, right, .. } = self.expectation;
        let names_attempts = |term: &ExpressionTerm| match term {
            ExpressionTerm::Figure(figure) => figure.metrics == ["tcp.attempts"],
            ExpressionTerm::Constant(_) | ExpressionTerm::Rate(_) | ExpressionTerm::Pair(..) => false,
        };
        let is_zero = |term: &ExpressionTerm| *term == ExpressionTerm::Constant(Fraction::ZERO);
        *comparison == Comparator::Equal
            && names_attempts(left)
            && is_zero(right)
            && self.judgement == Judgement::Met
    }
}

impl JudgedWindow {
    /// Judges an expectation.
    pub(crate) fn judge<'a>(&self, expectation: &'a Expectation) -> Judged<'a> {
        let (measured, limit) = (self.range(&expectation.left), self.range(&expectation.right));
        let judgement = match (&measured, &limit) {
            (Err(reason), _) | (Ok(_), Err(reason)) => Judgement::Inconclusive(reason.clone()),
            (Ok(_), Ok(_)) if !self.settled.is_exact() => Judgement::Inconclusive(Reason::Inexact),
            (Ok(measured), Ok(limit)) => match measured.compare(expectation.comparison, limit) {
                Some(true) => Judgement::Met,
                Some(false) => Judgement::Failed,
                None => {
                    let folded = measured.folded.as_ref().or(limit.folded.as_ref()).cloned();
                    Judgement::Inconclusive(folded.map_or(Reason::TooLarge, Reason::Folded))
                }
            },
        };
        Judged {
            expectation,
            judgement,
            bounds: measured.as_ref().ok().and_then(Range::bounds),
            measured: measured.and_then(|range| range.known()).ok(),
            limit: limit.and_then(|range| range.known()).ok(),
        }
    }

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

    /// The value of a term, in the base unit of its kind.
    ///
    /// # Errors
    ///
    /// The reason for which it is unknown.
    pub(crate) fn value(&self, term: &ExpressionTerm) -> Result<Fraction, Reason> {
        self.range(term)?.known()
    }

    fn range(&self, term: &ExpressionTerm) -> Result<Range, Reason> {
        match term {
            ExpressionTerm::Rate(of) => {
                let time = Fraction::new(self.ran_ns().into(), SECOND_NS.into()).unwrap_or(Fraction::ZERO);
                if time.is_zero() {
                    return Err(Reason::NoTime);
                }
                self.rise_range(of)?.combined(Operation::Over, Range::one(time), of)
            }
            ExpressionTerm::Pair(left, operation, right) => {
                self.range(left)?.combined(*operation, self.range(right)?, right)
            }
            ExpressionTerm::Constant(_) | ExpressionTerm::Figure(_) => at(term, &self.settled),
        }
    }

    /// The increase of a count while the command ran.
    ///
    /// # Errors
    ///
    /// The reason for which it is unknown.
    pub(crate) fn rise(&self, of: &ExpressionTerm) -> Result<Fraction, Reason> {
        self.rise_range(of)?.known()
    }

    fn rise_range(&self, of: &ExpressionTerm) -> Result<Range, Reason> {
        at(of, &self.ended)?.combined(Operation::Minus, at(of, &self.started)?, of)
    }
}

/// The value of a term at one moment.
fn at(term: &ExpressionTerm, snapshot: &Snapshot) -> Result<Range, Reason> {
    match term {
        ExpressionTerm::Constant(number) => Ok(Range::one(*number)),
        ExpressionTerm::Figure(figure) => total(figure, snapshot),
        // The parser refuses the rate of a rate.
        ExpressionTerm::Rate(of) => at(of, snapshot),
        ExpressionTerm::Pair(left, operation, right) => {
            at(left, snapshot)?.combined(*operation, at(right, snapshot)?, right)
        }
    }
}

/// The value of a figure: the sum of its metrics, of the whole report or of the selected services.
fn total(figure: &Figure, snapshot: &Snapshot) -> Result<Range, Reason> {
    let (mut known, mut folded) = (0_u64, 0_u64);
    for name in &figure.metrics {
        let (own, other) = match figure.selectors.as_slice() {
            [] => (of_all(name, snapshot).ok_or_else(|| Reason::NoSample(figure.to_string()))?, 0),
            _ => of_services(name, figure, snapshot),
        };
        (known, folded) = (known.saturating_add(own), folded.saturating_add(other));
    }
    Ok(Range {
        least: known.into(),
        most: known.saturating_add(folded).into(),
        folded: (folded != 0).then(|| figure.to_string()),
    })
}

fn of_all(name: &str, snapshot: &Snapshot) -> Option<u64> {
    METRICS.iter().find(|metric| metric.name == name)?.value(snapshot)
}

/// The count of the selected services, and that of the services without a row of their own, each of which may
/// be selected.
fn of_services(name: &str, figure: &Figure, snapshot: &Snapshot) -> (u64, u64) {
    let Some(metric) = SERVICE.iter().find(|metric| metric.name == name) else { return (0, 0) };
    let (mut known, mut folded) = (0_u64, 0_u64);
    for row in &snapshot.services {
        let count = metric.value(&row.books).unwrap_or(0);
        match row.service {
            Some(service) if figure.takes(service) => known = known.saturating_add(count),
            Some(_) => {}
            None => folded = folded.saturating_add(count),
        }
    }
    (known, folded)
}

#[cfg(test)]
mod tests {
    use handshake_agent::fake::Fake;
    use handshake_agent::model::snapshot::FIRST_UDP_ROW;
    use handshake_common::abi::Counter;
    use handshake_common::verdict::Leg;

    use super::{Judged, JudgedWindow, Judgement, Reason};
    use crate::check::expression::{Expectation, Fraction};
    use crate::check::tests::{load, standing};

    fn judgement(window: &JudgedWindow, text: &str) -> (Judgement, Option<Fraction>) {
        let expectation = Expectation::parse(text).expect(text);
        let Judged { judgement, measured, .. } = window.judge(&expectation);
        (judgement, measured)
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
            ("p50(connect) < 2ms", true),
            ("p99(connect) < 2ms", true),
            ("max(connect) < 2ms", false),
            ("count(connect) == 100", true),
            ("latency.connect.p50_ns < 2 ms", true),
            ("p99(connect) / p50(connect) == 1", true),
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
            assert!(text.contains("rate") || reason.to_string().ends_with(super::NOTHING_RAN));
            assert_eq!(judgement(&window, text), (Judgement::Inconclusive(reason), None), "{text}");
        }
        assert_eq!(judgement(&window, "count(connect) == 0").0, Judgement::Met, "a count is known");
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
        let expectation = Expectation::parse("attempts{port=443} >= 1206").expect("it is one");
        let judged = window.judge(&expectation);
        assert_eq!((judged.measured, judged.bounds), (None, Some((1206_u64.into(), 1211_u64.into()))));
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
