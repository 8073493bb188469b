//! The object of a comparison of two reports.

use std::io::{self, Write};

use serde_json::{Map, Value, json};

use super::check::{expectation, known_value, unit};
use super::{SCHEMA, line, put_known};
use crate::check::{Comparison, Fraction, Judged, Measured, SavedReport};
use crate::report::diff::Changed;

/// Writes the comparison as an object on a line of its own.
///
/// # Errors
///
/// Those of the writer.
pub(crate) fn write_diff(
    out: &mut dyn Write,
    comparison: &Comparison,
    changes: &[Changed],
    judged: &[Judged<'_>],
) -> io::Result<()> {
    let report = |report: &SavedReport| {
        json!({
            "path": report.path,
            "from": report.time("from"),
            "to": report.time("to"),
            "exact": report.is_exact(),
        })
    };
    let mut object = Map::new();
    object.insert("type".to_owned(), json!("diff"));
    object.insert("schema".to_owned(), json!(SCHEMA));
    object.insert("old".to_owned(), report(&comparison.old));
    object.insert("new".to_owned(), report(&comparison.new));
    object.insert("changes".to_owned(), changes.iter().map(changed).collect());
    object.insert("expectations".to_owned(), judged.iter().map(expectation).collect());
    line(out, &Value::Object(object))
}

fn changed(row: &Changed) -> Value {
    let mut object = Map::new();
    object.insert("metric".to_owned(), json!(row.name));
    object.insert("unit".to_owned(), json!(unit(row.kind)));
    put_known(&mut object, "old", row.old.map(known_value));
    put_known(&mut object, "new", row.new.map(known_value));
    put_known(&mut object, "change", row.change.and_then(Measured::known).map(Fraction::to_f64));
    put_known(&mut object, "worse", row.is_worse());
    Value::Object(object)
}
