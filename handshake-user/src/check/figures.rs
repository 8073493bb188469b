//! The figures of one report by their names: of a snapshot, or of a report that was written.

use std::collections::HashMap;

use handshake_agent::model::metric::{CONNECT_OF_ALL, METRICS, SERVICE, SERVICE_TIMES};
use handshake_agent::model::snapshot::{ServiceFigures, Snapshot};
use handshake_common::verdict::Leg;

use super::expression::{ExpressionTerm, Figure, Fraction, Operation};
use super::measured::Measured;
use super::reason::Reason;

/// The suffix of a time, and that of a time of which only a bound is known.
pub(super) const TIME: &str = "_ns";
const AT_LEAST: &str = "_at_least_ns";

/// One report.
pub(crate) trait Figures {
    /// The figure at this path; `None` where it is not known.
    fn figure(&self, path: &str) -> Option<u64>;

    /// The count of a figure over the services that it selects, and that of the services without a row of their
    /// own, each of which may be selected.
    ///
    /// # Errors
    ///
    /// The reason for which it is unavailable.
    fn of_services(&self, figure: &Figure) -> Result<[u64; 2], Reason>;

    /// What is known of the time to connect to the services that a figure selects together, and of that to those
    /// without a row of their own: by its path, the figure there.
    ///
    /// # Errors
    ///
    /// The reason for which it is unavailable.
    fn times_of_services(&self, figure: &Figure) -> Result<[FiguresAt; 2], Reason>;
}

/// The known figures by their paths.
pub(crate) type FiguresAt = HashMap<String, u64>;

impl Figures for Snapshot {
    fn figure(&self, path: &str) -> Option<u64> {
        METRICS.iter().find(|metric| metric.name == path)?.value(self)
    }

    fn of_services(&self, figure: &Figure) -> Result<[u64; 2], Reason> {
        let (mut known, mut folded) = (0_u64, 0_u64);
        for metric in figure.metrics.iter().filter_map(|name| SERVICE.iter().find(|m| m.name == **name)) {
            for row in &self.services {
                let count = metric.value(&row.books).unwrap_or(0);
                match row.service {
                    Some(service) if figure.takes(service) => known = known.saturating_add(count),
                    Some(_) => {}
                    None => folded = folded.saturating_add(count),
                }
            }
        }
        Ok([known, folded])
    }

    fn times_of_services(&self, figure: &Figure) -> Result<[FiguresAt; 2], Reason> {
        let is_chosen = |row: &&ServiceFigures| row.service.is_some_and(|each| figure.takes(each));
        let tcp = || self.services.iter().filter(|row| row.books.tcp().is_some());
        Ok([
            times(tcp().filter(is_chosen).cloned()),
            times(tcp().filter(|row| row.service.is_none()).cloned()),
        ])
    }
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

/// The first figure of a term to which services without a row of their own may contribute.
pub(super) fn folded(term: &ExpressionTerm, report: &dyn Figures) -> Option<String> {
    let is_folded = |figure: &&Figure| match figure.is_of_times() {
        _ if figure.selectors.is_empty() => false,
        true => report.times_of_services(figure).is_ok_and(|[_, folded]| has_attempts(&folded)),
        false => report.of_services(figure).is_ok_and(|[_, folded]| folded != 0),
    };
    term.figures().into_iter().find(is_folded).map(ToString::to_string)
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
            apply(value(left, report)?, *operation, value(right, report)?, right)
        }
    }
}

/// Joins two values; `divisor` names the second one.
pub(super) fn apply(
    left: Measured,
    operation: Operation,
    right: Measured,
    divisor: &ExpressionTerm,
) -> Result<Measured, Reason> {
    let result = match operation {
        Operation::Plus => left.plus(right),
        Operation::Minus => left.minus(right),
        Operation::Over if right.known().is_some_and(Fraction::is_zero) => {
            return Err(Reason::OverNothing(divisor.to_string()));
        }
        // Of services without a row none may be these.
        Operation::Over if right.least().is_some_and(Fraction::is_zero) => {
            return Err(Reason::Folded(divisor.to_string()));
        }
        Operation::Over => left.over(right),
    };
    result.ok_or(Reason::TooLarge)
}

/// The value of a figure: the sum of its metrics, of the whole report or of the selected services.
fn of_figure(figure: &Figure, report: &dyn Figures) -> Result<Measured, Reason> {
    if !figure.selectors.is_empty() && figure.is_of_times() {
        return of_times(figure, report);
    }
    if !figure.selectors.is_empty() {
        let [known, folded] = report.of_services(figure)?;
        return Ok(Measured::between(known.into(), known.saturating_add(folded).into()));
    }
    sum(figure, &|path| report.figure(path))
}

/// The value of a figure of the times to connect to the selected services. Where any of the services without a
/// row of their own has had an attempt, it may be one of them: a percentile is not known then, and a count is
/// that of the selected ones at least.
fn of_times(figure: &Figure, report: &dyn Figures) -> Result<Measured, Reason> {
    let [known, folded] = report.times_of_services(figure)?;
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
