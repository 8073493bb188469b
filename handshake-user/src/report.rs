//! Reports and flows as text and JSON.

pub(crate) mod diff;
pub(crate) mod gate;
pub(crate) mod json;
pub(crate) mod text;

use std::io::{self, Write};

use handshake_agent::model::flow::{Flow, View};
use handshake_agent::model::snapshot::{Interval, Snapshot};

use crate::check::Checked;
use handshake_export::events::{Event, Unlisted};
use text::Style;

/// The format of reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OutputFormat {
    /// Lines for people.
    Text,
    /// One JSON object at the end.
    Json,
    /// One JSON object per line.
    Jsonl,
}

/// Writes one flow.
///
/// # Errors
///
/// Those of the writer.
pub(crate) fn write_flow(
    out: &mut dyn Write,
    format: OutputFormat,
    view: &View<'_>,
    flow: &Flow,
    style: Style,
) -> io::Result<()> {
    match format {
        OutputFormat::Text => writeln!(out, "{}", text::draw_flow(view, flow, style).trim_end()),
        OutputFormat::Json | OutputFormat::Jsonl => json::write_flow(out, view, flow),
    }
}

/// Writes what happened to an attempt.
///
/// # Errors
///
/// Those of the writer.
pub(crate) fn write_event(
    out: &mut dyn Write,
    format: OutputFormat,
    view: &View<'_>,
    event: &Event,
    style: Style,
) -> io::Result<()> {
    match format {
        OutputFormat::Text => out.write_all(text::draw_event(view, event, style).as_bytes()),
        OutputFormat::Json | OutputFormat::Jsonl => json::write_event(out, view, event),
    }
}

/// Writes how many attempts have no row.
///
/// # Errors
///
/// Those of the writer.
pub(crate) fn write_unlisted(
    out: &mut dyn Write,
    format: OutputFormat,
    view: &View<'_>,
    unlisted: Unlisted,
    style: Style,
) -> io::Result<()> {
    match format {
        OutputFormat::Text => out.write_all(text::draw_unlisted(view, unlisted, style).as_bytes()),
        OutputFormat::Json | OutputFormat::Jsonl => json::write_unlisted(out, view, unlisted),
    }
}

/// Writes the closing report, with the flows if there are any to list.
///
/// # Errors
///
/// Those of the writer.
pub(crate) fn write_closing(
    out: &mut dyn Write,
    format: OutputFormat,
    snapshot: &Snapshot,
    flows: Option<(View<'_>, &[Flow])>,
    style: Style,
) -> io::Result<()> {
    match (format, flows) {
        (OutputFormat::Json, Some((view, flows))) => {
            return json::write_report_with_flows(out, snapshot, &view, flows);
        }
        (_, Some((view, flows))) => {
            flows.iter().try_for_each(|flow| write_flow(out, format, &view, flow, style))?;
        }
        (_, None) => {}
    }
    write_report(out, format, snapshot, None, style)
}

/// Writes a report.
///
/// # Errors
///
/// Those of the writer.
pub(crate) fn write_report(
    out: &mut dyn Write,
    format: OutputFormat,
    snapshot: &Snapshot,
    interval: Option<&Interval<'_>>,
    style: Style,
) -> io::Result<()> {
    match format {
        OutputFormat::Text => out.write_all(text::draw(snapshot, interval, style).as_bytes()),
        OutputFormat::Json | OutputFormat::Jsonl => json::write_report(out, snapshot, interval),
    }
}

/// Writes the report of a check with its expectations; as JSON with the flows if there are any to list.
///
/// # Errors
///
/// Those of the writer.
pub(crate) fn write_check(
    out: &mut dyn Write,
    format: OutputFormat,
    snapshot: &Snapshot,
    checked: &Checked<'_>,
    flows: Option<&[Flow]>,
    style: Style,
) -> io::Result<()> {
    match format {
        OutputFormat::Text => {
            let report = text::draw(snapshot, None, style);
            out.write_all(report.as_bytes())?;
            out.write_all(text::draw_check(checked, &report, style).as_bytes())
        }
        OutputFormat::Json | OutputFormat::Jsonl => json::write_check(out, snapshot, checked, flows),
    }
}
