//! The figures of one report by their names: of a snapshot, or of a report that was written.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use handshake_agent::model::metric::{CONNECT_OF_ALL, METRICS, Metric, SERVICE, SERVICE_TIMES};
use handshake_agent::model::snapshot::{ServiceBooks, ServiceFigures, Snapshot};
use handshake_agent::owner::Owner;
use handshake_common::flow::Side;
use handshake_common::verdict::Leg;

use super::expression::{ExpressionTerm, Figure, Fraction, Operation, Selection, Services, Workloads};
use super::measured::Measured;
use super::reason::Reason;

/// The suffix of a time, and that of a time of which only a bound is known.
pub(super) const TIME: &str = "_ns";
const AT_LEAST: &str = "_at_least_ns";

/// One report.
pub(crate) trait Figures {
    /// The figure at this path; `None` where it is not known.
    fn figure(&self, path: &str) -> Option<u64>;

    /// The count of a figure in each row of the services.
    ///
    /// # Errors
    ///
    /// The reason for which it is unavailable.
    fn by_service(&self, figure: &Figure) -> Result<Vec<(Option<SocketAddr>, u64)>, Reason>;

    /// The count of a figure in each row of the workloads.
    ///
    /// # Errors
    ///
    /// The reason for which it is unavailable.
    fn by_workload(&self, figure: &Figure) -> Result<Vec<CountOfWorkload>, Reason>;

    /// What is known of the time to connect to the services that a figure selects together, and of that to those
    /// without a row of their own: by its path, the figure there.
    ///
    /// # Errors
    ///
    /// The reason for which it is unavailable.
    fn times_of_services(&self, services: &Services, figure: &Figure) -> Result<[FiguresAt; 2], Reason>;
}

/// The count of a figure in a row of the workloads.
#[derive(Clone, Debug)]
pub(crate) struct CountOfWorkload {
    /// The owner, if it is known.
    pub(crate) owner: Option<Arc<Owner>>,
    /// The side; the sum of the others has none.
    pub(crate) side: Option<Side>,
    /// The count.
    pub(crate) count: u64,
}

/// What is known of a count over some rows.
#[derive(Clone, Copy, Debug, Default)]
struct Range {
    /// It is at least this.
    least: u64,
    /// How much more it may be because an attempt counts once, though both of its ends are selected.
    twice: u64,
    /// How much more it may be because of rows that may be selected.
    hidden: u64,
}

impl Range {
    fn of(figure: &Figure, report: &dyn Figures) -> Result<Self, Reason> {
        match &figure.of {
            Selection::All => Ok(Self::default()),
            Selection::Services(services) => Ok(Self::of_services(services, &report.by_service(figure)?)),
            Selection::Workloads(workloads) => {
                Ok(Self::of_workloads(workloads, &report.by_workload(figure)?))
            }
        }
    }

    /// Services without a row of their own may be selected.
    fn of_services(services: &Services, rows: &[(Option<SocketAddr>, u64)]) -> Self {
        let mut range = Self::default();
        for (service, count) in rows {
            let part = match service {
                Some(service) if !services.take(*service) => continue,
                Some(_) => &mut range.least,
                None => &mut range.hidden,
            };
            *part = part.saturating_add(*count);
        }
        range
    }

    /// The rows do not tell how many attempts have both ends among the selected workloads: without a side, those
    /// of the side with fewer may be among those of the other.
    fn of_workloads(workloads: &Workloads, rows: &[CountOfWorkload]) -> Self {
        let (mut sides, mut hidden) = ([0_u64; 2], 0_u64);
        for CountOfWorkload { owner, side, count } in rows {
            let part = match (workloads.take(owner.as_deref(), *side), side) {
                (Some(false), _) => continue,
                (Some(true), Some(side)) => &mut sides[*side as usize],
                (Some(true), None) | (None, _) => &mut hidden,
            };
            *part = part.saturating_add(*count);
        }
        let [one, other] = sides;
        Self { least: one.max(other), twice: one.min(other), hidden }
    }

    fn measured(self) -> Measured {
        let Self { least, twice, hidden } = self;
        Measured::between(least.into(), least.saturating_add(twice).saturating_add(hidden).into())
    }

    /// Why no more is known of this figure; `None` where all is known.
    fn gap(self, figure: &Figure) -> Option<Reason> {
        let shown = figure.to_string();
        match (&figure.of, self.hidden, self.twice) {
            (_, 0, 0) => None,
            (Selection::Workloads(_), 0, _) => Some(Reason::BothSides(shown)),
            (Selection::Workloads(_), ..) => Some(Reason::Unowned(shown)),
            (Selection::All | Selection::Services(_), ..) => Some(Reason::Folded(shown)),
        }
    }
}

/// The known figures by their paths.
pub(crate) type FiguresAt = HashMap<String, u64>;

impl Figures for Snapshot {
    fn figure(&self, path: &str) -> Option<u64> {
        METRICS.iter().find(|metric| metric.name == path)?.value(self)
    }

    fn by_service(&self, figure: &Figure) -> Result<Vec<(Option<SocketAddr>, u64)>, Reason> {
        let metrics = metrics(figure);
        Ok(self.services.iter().map(|row| (row.service, count(&metrics, &row.books))).collect())
    }

    fn by_workload(&self, figure: &Figure) -> Result<Vec<CountOfWorkload>, Reason> {
        if self.workloads.is_empty() && self.tcp.books.attempts != 0 {
            return Err(Reason::NoOwner(figure.to_string()));
        }
        let metrics = metrics(figure);
        let rows = self.workloads.iter().map(|row| CountOfWorkload {
            owner: row.owner.clone(),
            side: row.side,
            count: count(&metrics, &ServiceBooks::Tcp(row.books)),
        });
        Ok(rows.collect())
    }

    fn times_of_services(&self, services: &Services, _: &Figure) -> Result<[FiguresAt; 2], Reason> {
        let is_chosen = |row: &&ServiceFigures| row.service.is_some_and(|each| services.take(each));
        let tcp = || self.services.iter().filter(|row| row.books.tcp().is_some());
        Ok([
            times(tcp().filter(is_chosen).cloned()),
            times(tcp().filter(|row| row.service.is_none()).cloned()),
        ])
    }
}

/// The metrics of a row that a figure is the sum of.
fn metrics(figure: &Figure) -> Vec<&'static Metric<ServiceBooks>> {
    figure.metrics.iter().filter_map(|name| SERVICE.iter().find(|metric| metric.name == **name)).collect()
}

fn count(metrics: &[&Metric<ServiceBooks>], books: &ServiceBooks) -> u64 {
    metrics.iter().filter_map(|metric| metric.value(books)).fold(0, u64::saturating_add)
}

/// The times to connect of services together.
fn times(rows: impl Iterator<Item = ServiceFigures>) -> FiguresAt {
    let sum = rows.reduce(|mut sum, row| {
        sum += &row;
        sum
    });
    let times = sum.and_then(|sum| sum.times()).unwrap_or_default();
    SERVICE_TIMES.iter().filter_map(|metric| Some((metric.name.clone(), metric.value(&times)?))).collect()
}

/// Why no more is known of the first figure of a term that rows may contribute to which cannot be told apart.
pub(super) fn gap(term: &ExpressionTerm, report: &dyn Figures) -> Option<Reason> {
    term.figures().into_iter().find_map(|figure| match &figure.of {
        Selection::Services(services) if figure.is_of_times() => {
            let times = report.times_of_services(services, figure);
            let is_folded = times.is_ok_and(|[_, folded]| has_attempts(&folded));
            is_folded.then(|| Reason::Folded(figure.to_string()))
        }
        Selection::All | Selection::Services(_) | Selection::Workloads(_) => {
            Range::of(figure, report).ok()?.gap(figure)
        }
    })
}

/// The value of a term in one report. What compares two reports, and a rate, are not of one.
pub(super) fn value(term: &ExpressionTerm, report: &dyn Figures) -> Result<Measured, Reason> {
    match term {
        ExpressionTerm::Constant(number) => Ok(Measured::exactly(*number)),
        ExpressionTerm::Figure(figure) => of_figure(figure, report),
        ExpressionTerm::Rate(of) | ExpressionTerm::Of(_, of) | ExpressionTerm::Change(of, _) => {
            value(of, report)
        }
        ExpressionTerm::Pair(left, operation, right) => {
            apply(value(left, report)?, *operation, (value(right, report)?, right), report)
        }
    }
}

/// Joins two values, of which the second is that of a term in this report.
pub(super) fn apply(
    left: Measured,
    operation: Operation,
    (right, divisor): (Measured, &ExpressionTerm),
    report: &dyn Figures,
) -> Result<Measured, Reason> {
    let result = match operation {
        Operation::Plus => left.plus(right),
        Operation::Minus => left.minus(right),
        Operation::Over if right.known().is_some_and(Fraction::is_zero) => {
            return Err(Reason::OverNothing(divisor.to_string()));
        }
        // Of what cannot be told apart nothing may be selected.
        Operation::Over if right.least().is_some_and(Fraction::is_zero) => {
            return Err(gap(divisor, report).unwrap_or(Reason::Undecided));
        }
        Operation::Over => left.over(right),
    };
    result.ok_or(Reason::TooLarge)
}

/// The value of a figure: the sum of its metrics, of the whole report or of what is selected.
fn of_figure(figure: &Figure, report: &dyn Figures) -> Result<Measured, Reason> {
    match &figure.of {
        Selection::All => sum(figure, &|path| report.figure(path)),
        Selection::Services(services) if figure.is_of_times() => of_times(figure, services, report),
        Selection::Services(_) | Selection::Workloads(_) => Ok(Range::of(figure, report)?.measured()),
    }
}

/// The value of a figure of the times to connect to the selected services. Where any of the services without a
/// row of their own has had an attempt, it may be one of them: a percentile is not known then, and a count is
/// that of the selected ones at least.
fn of_times(figure: &Figure, services: &Services, report: &dyn Figures) -> Result<Measured, Reason> {
    let [known, folded] = report.times_of_services(services, figure)?;
    let least = sum(figure, &|path| known.get(path).copied())?;
    if !has_attempts(&folded) {
        return Ok(least);
    }
    if figure.metrics.iter().any(|path| path.ends_with(TIME)) {
        return Err(Reason::Folded(figure.to_string()));
    }
    let more = sum(figure, &|path| folded.get(path).copied())?;
    let (Some(known), Some(folded)) = (least.known(), more.known()) else { return Err(Reason::TooLarge) };
    Ok(Measured::between(known, known.plus(folded).ok_or(Reason::TooLarge)?))
}

/// Whether there is an attempt among those of these times, with a time or without one.
fn has_attempts(times: &FiguresAt) -> bool {
    let excluded = format!("latency.{}.excluded", Leg::Connect.name());
    let counts = [format!("{CONNECT_OF_ALL}.count"), excluded];
    counts.iter().any(|path| times.get(path).is_some_and(|count| *count != 0))
}

/// The sum of a figure's metrics, which `look` finds by their paths.
fn sum(figure: &Figure, look: &dyn Fn(&str) -> Option<u64>) -> Result<Measured, Reason> {
    let mut sum = Measured::exactly(Fraction::ZERO);
    for path in &figure.metrics {
        let each = match known(path, look) {
            Some(each) => each,
            None if path.ends_with(AT_LEAST) => return Err(Reason::Unknown(figure.to_string())),
            None if path.ends_with(TIME) => return Err(Reason::NoSample(figure.to_string())),
            None => return Err(Reason::Unknown(figure.to_string())),
        };
        sum = sum.plus(each).ok_or(Reason::TooLarge)?;
    }
    Ok(sum)
}

fn known(path: &str, look: &dyn Fn(&str) -> Option<u64>) -> Option<Measured> {
    let number = |path: &str| look(path).map(Fraction::from);
    if let Some(number) = number(path) {
        return Some(Measured::exactly(number));
    }
    let percentile = path.strip_prefix(CONNECT_OF_ALL)?.strip_suffix(TIME)?;
    if percentile.ends_with("_at_least") {
        return None;
    }
    if let Some(least) = number(&format!("{CONNECT_OF_ALL}{percentile}{AT_LEAST}")) {
        return Some(Measured::at_least(least));
    }
    let attempts = look(&format!("{CONNECT_OF_ALL}.count"))?;
    (attempts != 0).then_some(Measured::NEVER)
}
