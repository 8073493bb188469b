//! The names that the operator gave to workloads.

use std::str::FromStr;
use std::sync::LazyLock;

use handshake_agent::model::metric::series::{Family, Series};
use handshake_agent::model::snapshot::{ServiceBooks, Snapshot, WorkloadFigures};
use handshake_agent::owner::{OwnerChoice, OwnerKind};
use handshake_common::flow::Side;
use handshake_common::verdict::Verdict;

use crate::names::{Column, Labels, Names, Row, Rule, columns, labels_behind, named};

/// `NAME=KIND:VALUE`: owners with a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkloadRule {
    /// The name.
    pub name: String,
    choice: OwnerChoice,
}

/// What has a name on one side of its attempts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SideRule {
    rule: WorkloadRule,
    side: Side,
}

/// The figures of workloads by name and side.
pub type Workloads = Names<WorkloadFigures>;

impl WorkloadRule {
    /// The rule for each side.
    pub fn sides(&self) -> [SideRule; 2] {
        Side::BOTH.map(|side| SideRule { rule: self.clone(), side })
    }
}

impl FromStr for WorkloadRule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, what) = named(text, "web=unit:nginx.service")?;
        let (kind, value) = what.split_once(':').unwrap_or((what, ""));
        let kind = OwnerKind::named(kind).ok_or_else(|| {
            let kinds = OwnerKind::ALL.map(|kind| format!("{}:{}", kind.name(), kind.example()));
            format!("'{kind}' is no kind of owner: use {}", kinds.join(", "))
        })?;
        Ok(Self { name: name.to_owned(), choice: OwnerChoice::new(kind, value)? })
    }
}

/// The series of a workload on one side, derived from the table of metrics.
static COLUMNS: LazyLock<Vec<Column>> = LazyLock::new(|| columns(of_workload));

/// The family of a workload's figure, and its labels behind the name. What has no record has no owner.
fn of_workload(series: &Series) -> Option<(&'static Family, Vec<&'static str>)> {
    let family = series.family.of_workload?;
    let labels = labels_behind(series, family, SideRule::LABELS);
    (labels != [Verdict::Untracked.name()]).then_some((family, labels))
}

/// The figures of all workloads, for each column.
pub fn totals(snapshot: &Snapshot) -> Vec<u64> {
    let of_all = |column: &Column| snapshot.workloads.iter().map(|row| column.of(&row.books())).sum();
    COLUMNS.iter().map(of_all).collect()
}

impl Row for WorkloadFigures {
    type Rule = SideRule;
    /// The group, and its side as a number.
    type Key = (u64, u8);

    fn key(&self) -> Option<Self::Key> {
        Some((self.group?, self.side? as u8))
    }

    fn books(&self) -> ServiceBooks {
        ServiceBooks::Tcp(self.books)
    }

    fn is_known(&self) -> bool {
        self.owner.is_some()
    }

    fn columns() -> &'static [Column] {
        &COLUMNS
    }
}

impl Rule<WorkloadFigures> for SideRule {
    const LABELS: usize = 2;

    fn labels(&self) -> Labels {
        vec![self.rule.name.clone().into(), self.side.name().into()]
    }

    fn admits(&self, row: &WorkloadFigures) -> bool {
        let takes = |owner| self.rule.choice.takes(owner) == Some(true);
        row.side == Some(self.side) && row.owner.as_deref().is_some_and(takes)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use handshake_agent::model::snapshot::{TcpBooks, WorkloadFigures};
    use handshake_agent::owner::Owner;
    use handshake_common::flow::Side;
    use handshake_common::verdict::Verdict;

    use super::{COLUMNS, WorkloadRule, Workloads};
    use crate::names::{Names, Row as _};

    const NGINX: Option<&str> = Some("nginx.service");

    /// A row of a group: whose it is, attempts, and those that were completed.
    fn row(group: u64, unit: Option<&str>, side: Side, attempts: u64, completed: u64) -> WorkloadFigures {
        let owner = unit.map(|unit| {
            let cgroup = format!("/system.slice/{unit}");
            Arc::new(Owner { cgroup, unit: Some(unit.to_owned()), container: None, pod: None })
        });
        let books = TcpBooks::of(attempts, &[(Verdict::Completed, [completed, 0])]);
        WorkloadFigures { group: Some(group), owner, side: Some(side), books }
    }

    fn others(attempts: u64) -> WorkloadFigures {
        WorkloadFigures { group: None, side: None, ..row(0, None, Side::Initiator, attempts, 0) }
    }

    fn named(rules: &[&str]) -> Workloads {
        let mut workloads: Workloads = Names::default();
        name(&mut workloads, rules);
        workloads
    }

    fn name(workloads: &mut Workloads, rules: &[&str]) {
        let rules = rules.iter().map(|rule| rule.parse::<WorkloadRule>().expect(rule));
        workloads.name(rules.flat_map(|rule| rule.sides()));
    }

    /// Takes rows in: attempts by name, of the initiator and of the responder, and of the others.
    fn take(workloads: &mut Workloads, rows: &[WorkloadFigures]) -> Vec<u64> {
        let of_all = |column: &super::Column| rows.iter().map(|row| column.of(&row.books())).sum();
        let totals: Vec<u64> = COLUMNS.iter().map(of_all).collect();
        workloads.take_in(&rows.into(), &totals);
        let at = COLUMNS.iter().position(|column| column.family.name == "handshake_workload_attempts_total");
        let at = at.expect("there is such a column");
        workloads.figures().map(|(_, figures)| figures[at]).collect()
    }

    #[test]
    fn a_rule_is_read_in_each_form() {
        for rule in ["a=unit:nginx.service", "b=pod:shop/web-1", "c=container:web", "d=cgroup:/system.slice"]
        {
            assert!(rule.parse::<WorkloadRule>().is_ok(), "{rule}");
        }
        for (rule, fault) in [
            ("nginx", "a name is missing, as in web=unit:nginx.service"),
            ("a=nginx.service", "'nginx.service' is no kind of owner: use unit:nginx.service, pod:web-1, "),
            ("a=unit:nginx", "'nginx' is no unit"),
            ("a=pod:", "pod has no value"),
            ("other=pod:web-1", "'other' is the name of what has none"),
        ] {
            let wrong = rule.parse::<WorkloadRule>().expect_err(rule);
            assert!(wrong.starts_with(fault), "{wrong}");
        }
    }

    #[test]
    fn a_name_has_each_side_and_the_others_have_none() {
        let mut workloads = named(&["web=unit:nginx.service", "all=cgroup:/system.slice"]);
        let rows = [
            row(1, NGINX, Side::Responder, 7, 6),
            row(1, NGINX, Side::Initiator, 3, 3),
            row(2, Some("curl.service"), Side::Initiator, 2, 2),
            WorkloadFigures { owner: None, ..row(3, None, Side::Initiator, 0, 0) },
            others(4),
        ];
        assert_eq!(take(&mut workloads, &rows), [3, 7, 2, 0, 4]);
        let labels: Vec<String> = workloads.figures().map(|(labels, _)| labels.join(" ")).collect();
        assert_eq!(labels, ["web initiator", "web responder", "all initiator", "all responder", "other "]);
        let columns = COLUMNS.iter().map(|column| column.labels.join(" ")).collect::<Vec<_>>();
        let expected = [
            "",
            "completed",
            "refused",
            "unreachable",
            "initiator_aborted",
            "responder_aborted",
            "superseded",
            "half_open_expired",
            "evicted",
        ];
        assert_eq!(columns, expected);
    }

    /// A row that is given to another group takes what it counted to the others; the name keeps it.
    #[test]
    fn counters_never_fall() {
        let mut workloads = named(&["web=unit:nginx.service"]);
        let first =
            [row(1, NGINX, Side::Responder, 50, 50), row(2, Some("x.service"), Side::Initiator, 5, 5)];
        assert_eq!(take(&mut workloads, &first), [0, 50, 5]);
        // Whose the three attempts since were is no longer known.
        let gone = [row(2, Some("x.service"), Side::Initiator, 6, 6), others(53)];
        assert_eq!(take(&mut workloads, &gone), [0, 50, 9]);
        let back = [
            row(1, NGINX, Side::Responder, 2, 2),
            row(2, Some("x.service"), Side::Initiator, 6, 6),
            others(53),
        ];
        assert_eq!(take(&mut workloads, &back), [0, 52, 9]);
        name(&mut workloads, &["web=unit:nginx.service", "x=unit:x.service"]);
        assert_eq!(take(&mut workloads, &back), [0, 52, 0, 0, 9]);
    }

    /// The tree is walked beside the readings, so the owner of a new group may be known with the next one.
    #[test]
    fn a_new_group_waits_for_its_owner() {
        let mut workloads = named(&["web=unit:nginx.service"]);
        assert_eq!(take(&mut workloads, &[row(1, None, Side::Responder, 5, 5), others(1)]), [0, 0, 1]);
        assert_eq!(take(&mut workloads, &[row(1, NGINX, Side::Responder, 8, 8), others(1)]), [0, 8, 1]);
        // One that stays unknown is one of the others.
        let rows = |attempts| {
            [row(1, NGINX, Side::Responder, 8, 8), row(2, None, Side::Initiator, attempts, 0), others(1)]
        };
        assert_eq!(take(&mut workloads, &rows(3)), [0, 8, 1]);
        assert_eq!(take(&mut workloads, &rows(4)), [0, 8, 5]);
        assert_eq!(take(&mut workloads, &rows(6)), [0, 8, 7]);
    }
}
