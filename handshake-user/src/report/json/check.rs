//! The fields that a check adds to the report's object: `expectations`, and `command` and `kernel` if there
//! are any.

use std::io::{self, Write};

use handshake_agent::model::flow::{Flow, View};
use handshake_agent::model::snapshot::Snapshot;
use serde_json::{Map, Value, json};

use super::{line, put_known, report, with_flows};
use crate::check::{
    Checked, Ended, Fraction, Judged, Judgement, KernelCounter, Measured, NetAccount, Status, ValueKind,
};
use crate::time::rfc3339;

/// Writes one report with its expectations on a line of its own, with the flows if there are any to list.
///
/// # Errors
///
/// Those of the writer.
pub(crate) fn write_check(
    out: &mut dyn Write,
    snapshot: &Snapshot,
    checked: &Checked<'_>,
    flows: Option<&[Flow]>,
) -> io::Result<()> {
    let mut object = report(snapshot, None);
    if let Value::Object(object) = &mut object {
        let expectations = checked.judged.iter().map(expectation).collect();
        object.insert("expectations".to_owned(), Value::Array(expectations));
        put_known(object, "command", checked.command.as_ref().map(|ended| command(ended, checked)));
        put_known(object, "kernel", checked.account.as_ref().map(|account| kernel(account, checked)));
    }
    match flows {
        Some(flows) => with_flows(out, &object, &View::of(snapshot), flows),
        None => line(out, &object),
    }
}

pub(super) fn expectation(judged: &Judged<'_>) -> Value {
    let mut object = Map::new();
    let (met, reason) = match &judged.judgement {
        Judgement::Met => (Some(true), None),
        Judgement::Failed => (Some(false), None),
        Judgement::Inconclusive(reason) => (None, Some(reason.to_string())),
    };
    object.insert("expression".to_owned(), json!(judged.expectation.text));
    object.insert("met".to_owned(), json!(met));
    object.insert("measured".to_owned(), json!(judged.measured.and_then(Measured::known).map(number)));
    judged.measured.into_iter().for_each(|measured| put_bounds(&mut object, measured));
    object.insert("limit".to_owned(), json!(judged.limit.and_then(Measured::known).map(number)));
    object.insert("unit".to_owned(), json!(unit(judged.expectation.kind)));
    put_known(&mut object, "reason", reason.map(|reason| json!(reason)));
    Value::Object(object)
}

/// What is known of a value that is not known itself.
fn put_bounds(object: &mut Map<String, Value>, measured: Measured) {
    put_known(object, "at_least", measured.least().map(number));
    put_known(object, "at_most", measured.most().map(number));
    put_known(object, "never", measured.is_never().then_some(true));
}

/// What is known of a value.
pub(super) fn known_value(measured: Measured) -> Value {
    let mut object = Map::new();
    put_known(&mut object, "value", measured.known().map(number));
    put_bounds(&mut object, measured);
    Value::Object(object)
}

/// A number; a whole one is written as an integer.
fn number(value: Fraction) -> Value {
    match value.whole().and_then(|whole| i64::try_from(whole).ok()) {
        Some(whole) => json!(whole),
        None => json!(value.to_f64()),
    }
}

/// The base unit of both sides of an expectation.
pub(super) const fn unit(kind: ValueKind) -> &'static str {
    match kind {
        ValueKind::Number | ValueKind::Share => "1",
        ValueKind::Count => "count",
        ValueKind::Time => "ns",
        ValueKind::Rate => "per_second",
    }
}

fn command(ended: &Ended, checked: &Checked<'_>) -> Value {
    let (status, signal) = match ended.status {
        Some(Status::Exited(code)) => (Some(code), None),
        Some(Status::Killed(signal)) => (None, Some(signal)),
        None => (None, None),
    };
    let window = &checked.window;
    json!({
        "words": ended.words,
        "status": status,
        "signal": signal,
        "stopped": ended.stopped,
        "started": rfc3339(window.wall_of(&window.started)),
        "ended": rfc3339(window.wall_of(&window.ended)),
    })
}

/// The kernel's counters over the time from `from` to `to`, and the completed attempts on the wire in the
/// same time.
fn kernel(account: &NetAccount, checked: &Checked<'_>) -> Value {
    let mut object = Map::new();
    object.insert("from".to_owned(), json!(rfc3339(checked.window.wall_of(&checked.window.started))));
    object.insert("to".to_owned(), json!(rfc3339(checked.window.wall_of(&checked.window.settled))));
    for counter in KernelCounter::ALL {
        object.insert(counter.field().to_owned(), json!(account.counts.of(counter)));
    }
    put_known(&mut object, "completed_on_wire", account.completed.map(|completed| json!(completed)));
    object.insert("attempts_on_wire".to_owned(), json!(account.attempts));
    object.insert("differences".to_owned(), json!(account.words()));
    Value::Object(object)
}
