//! The comparison of two reports: which figures differ, and their table.

use std::cmp::Ordering;

use handshake_agent::model::metric::METRICS;
use handshake_common::verdict::Leg;

use super::text::{self, Spoken, Style};
use crate::check::name::short;
use crate::check::{
    Comparison, Expectation, ExpressionTerm, Fraction, Measured, SavedReport, Scope, ValueKind, Which,
};
use crate::number::span;

/// Figures of TCP that no run is better or worse for.
const NEUTRAL: [&str; 5] = ["attempts", "completed", "opening", "midstream", "orphan_syn_ack"];
/// Percentiles of the time to connect, and of the other legs.
const OF_CONNECT: [&str; 6] = ["p50", "p90", "p95", "p99", "p99.9", "max"];
const OF_LEGS: [&str; 2] = ["p50", "p99"];

/// Which way is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Better {
    More,
    Less,
    Neither,
}

/// A figure that changed.
pub(crate) struct Changed {
    /// Its name in the language of expectations.
    pub(super) name: String,
    /// What it is.
    pub(super) kind: ValueKind,
    /// Its value in the first report, if that has it.
    pub(super) old: Option<Measured>,
    /// Its value in the second report, if that has it.
    pub(super) new: Option<Measured>,
    /// The change, if both have it.
    pub(super) change: Option<Measured>,
    better: Better,
}

impl Changed {
    /// Whether it became worse; `None` where that has no meaning or is not known.
    pub(super) fn is_worse(&self) -> Option<bool> {
        let zero = Measured::exactly(Fraction::ZERO);
        let rose = self.change?.holds(crate::check::Comparator::More, zero)?;
        match self.better {
            Better::More => Some(!rose),
            Better::Less => Some(rose),
            Better::Neither => None,
        }
    }

    /// By how much, to compare two that became worse, or better: shares first.
    fn weight(&self) -> (u8, f64) {
        let group = match self.is_worse() {
            Some(true) => 0,
            None if self.better != Better::Neither => 1,
            Some(false) => 2,
            None => 3,
        };
        let size = match self.change.and_then(Measured::known) {
            Some(change) => change.to_f64().abs(),
            None => f64::INFINITY,
        };
        (2 * group + u8::from(self.kind != ValueKind::Share), size)
    }
}

/// The figures that differ, those that became worse first.
pub(crate) fn changes(comparison: &Comparison) -> Vec<Changed> {
    let row = |(name, better): (String, Better)| {
        let (term, kind) = figure(&name)?;
        let of = |which| comparison.of(which, &term).ok();
        let (old, new) = (of(Which::Old), of(Which::New));
        let change = comparison.change(&term, kind).ok();
        (old != new).then_some(Changed { name, kind, old, new, change, better })
    };
    let mut all: Vec<Changed> = rows().into_iter().filter_map(row).collect();
    all.sort_by(|a, b| {
        let ((group, size), (other_group, other_size)) = (a.weight(), b.weight());
        group.cmp(&other_group).then(other_size.partial_cmp(&size).unwrap_or(Ordering::Equal))
    });
    all
}

/// The figures that are compared.
fn rows() -> Vec<(String, Better)> {
    let shares =
        ["completed / attempts", "udp.answered / udp.flows"].map(|name| (name.to_owned(), Better::More));
    let legs = Leg::ALL.into_iter().flat_map(|leg| {
        let percentiles: &[&str] = if leg == Leg::Connect { &OF_CONNECT } else { &OF_LEGS };
        percentiles.iter().map(move |percentile| (format!("{percentile}({})", leg.name()), Better::Less))
    });
    let counts = METRICS.iter().map(|metric| short(&metric.name)).filter_map(|name| {
        let metric = METRICS.iter().find(|metric| short(&metric.name) == name)?;
        let of_tcp = metric.name.starts_with("tcp.") && !name.starts_with("entered.");
        let better = match name {
            _ if NEUTRAL.contains(&name) || name == "udp.flows" => Better::Neither,
            "udp.unanswered" | "udp.unreachable" | "udp.evicted" | "udp.untracked" => Better::Less,
            "contended" | "lost_events" | "lost_before_hook" => Better::Less,
            _ if of_tcp => Better::Less,
            _ => return None,
        };
        Some((name.to_owned(), better))
    });
    shares.into_iter().chain(legs).chain(counts).collect()
}

/// A figure as a term of the language of expectations.
fn figure(text: &str) -> Option<(ExpressionTerm, ValueKind)> {
    // Nothing but a time needs a unit here.
    let parsed = ["0", "0s"]
        .into_iter()
        .find_map(|zero| Expectation::parse(&format!("{text} >= {zero}"), text, Scope::TwoReports).ok())?;
    Some((parsed.left, parsed.kind))
}

/// Draws the two reports and what changed.
pub(crate) fn draw(comparison: &Comparison, changes: &[Changed], style: Style) -> String {
    let mut out = String::new();
    for (label, report) in [("old", &comparison.old), ("new", &comparison.new)] {
        text::draw_saved(&mut out, label, &described(report), report.is_exact(), style);
    }
    let mut rows: Vec<[String; 5]> = changes.iter().map(cells).collect();
    if rows.is_empty() {
        out.push_str("nothing changed\n");
        return out;
    }
    rows.insert(0, ["", "old", "new", "change", ""].map(str::to_owned));
    text::draw_table(&mut out, &rows, style);
    out
}

fn described(report: &SavedReport) -> String {
    let from: String = report.time("from").chars().take("2026-03-01T12:03:41".len()).collect();
    format!("{} · {} UTC · {}", report.path, from.replace('T', " "), span(report.length_ns()))
}

fn cells(row: &Changed) -> [String; 5] {
    let spoken = Spoken { kind: row.kind, percent: true };
    let shown =
        |value: Option<Measured>| value.map_or_else(|| "–".to_owned(), |value| spoken.value(value, None));
    let verdict = match row.is_worse() {
        Some(true) => "worse",
        Some(false) => "better",
        None => "",
    };
    [row.name.clone(), shown(row.old), shown(row.new), change(row), verdict.to_owned()]
}

/// A change in points, as a factor or in per cent.
fn change(row: &Changed) -> String {
    let Some(change) = row.change.and_then(Measured::known) else { return String::new() };
    let sign = if change > Fraction::ZERO { "+" } else { "" };
    let percent = Spoken { kind: ValueKind::Share, percent: true }.value(Measured::exactly(change), None);
    let ratio = change.plus(1_u64.into());
    match ratio.filter(|ratio| *ratio >= Fraction::from(2_u64)) {
        _ if row.kind == ValueKind::Share => format!("{sign}{} points", percent.trim_end_matches(" %")),
        Some(ratio) => {
            let factor = Spoken { kind: ValueKind::Number, percent: false };
            format!("×{}", factor.value(Measured::exactly(ratio), None))
        }
        None => format!("{sign}{percent}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{changes, draw, figure, rows};
    use crate::check::saved_tests::{comparison, comparison_of};
    use crate::check::{Expectation, Judged, Scope};
    use crate::report::json::write_diff;
    use crate::report::text::{Style, measured};

    #[test]
    fn every_row_is_a_figure() {
        for (name, _) in rows() {
            assert!(figure(&name).is_some(), "{name}");
        }
    }

    #[test]
    fn what_changed_is_shown_worst_first() {
        let comparison = comparison();
        let changes = changes(&comparison);
        insta::assert_snapshot!(draw(&comparison, &changes, Style::plain(100)));
        let mut out = Vec::new();
        write_diff(&mut out, &comparison, &changes, &[]).expect("memory takes everything");
        let object: serde_json::Value = serde_json::from_slice(&out).expect("an object");
        insta::assert_snapshot!("diff_as_json", format!("{object:#}"));
    }

    /// Attempts of both runs are still waiting: by how much the time changed is not known, and that is said.
    #[test]
    fn a_change_between_two_lower_bounds_is_not_known() {
        let waiting = |ns: u64| json!({"count": 100, "not_connected": 90, "p99_at_least_ns": ns});
        let connected = json!({"count": 100, "not_connected": 0, "p99_ns": 1_000_000_000});
        let (three, five) = (waiting(3_000_000_000), waiting(5_000_000_000));
        let table = [
            (
                &three,
                &five,
                "from > 3 s to > 5 s, but both are only lower bounds, so the change between them is not known",
            ),
            (&three, &connected, "-100.0 % to -66.7 % (from > 3 s to 1 s)"),
            (&connected, &waiting(1_100_000_000), "> 10.0 % (from 1 s to > 1.1 s), but it is not known"),
        ];
        let text = "change(p99(connect)) <= 20%";
        let expectation = Expectation::parse(text, text, Scope::TwoReports).expect(text);
        for (old, new, said) in table {
            let comparison = comparison_of(old, new);
            let shown = measured(&Judged::by(&comparison, &expectation), &comparison);
            assert!(shown.starts_with(said), "{shown}");
        }
    }

    #[test]
    fn a_change_is_told_with_what_it_is_of() {
        let comparison = comparison();
        let table = [
            ("change(completed / attempts) >= 0%", "-1.6 points (from 100.0 % to 98.4 %)"),
            ("change(late) < 0%", "+20.0 % (from 10 to 12)"),
            ("change(completed) >= 0%", "-1.6 % (from 1 000 to 984)"),
            ("change(p99(connect)) < 0%", "> 300.0 % (from 100 ns to > 400 ns)"),
            ("change(p99.9(connect)) < 0%", "∞ (from 200 ns to never)"),
            ("change(refused) == 0%", "∞ (from 0 to 16)"),
            ("change(late / 5) == 0", "+20.0 % (from 2 to 2.4)"),
            ("new(refused) - old(refused) == 0", "16 (16 - 0)"),
        ];
        for (text, said) in table {
            let expectation = Expectation::parse(text, text, Scope::TwoReports).expect(text);
            let judged = Judged::by(&comparison, &expectation);
            assert_eq!(measured(&judged, &comparison), said, "{text}");
        }
    }
}
