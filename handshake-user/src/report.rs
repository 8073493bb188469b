//! Reports and flows as text and JSON, and the output that they are written to.

pub(crate) mod json;
pub(crate) mod text;

use std::io::{self, ErrorKind, Write};

use handshake_agent::model::flow::{Flow, View};
use handshake_agent::model::snapshot::{Interval, Snapshot};

use crate::check::Checked;
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

/// The destination of reports. Its reader may close it at any time (`handshake | head`), which ends the
/// output and is not an error.
pub(crate) struct Output<W> {
    writer: W,
    closed: bool,
}

impl<W: Write> Output<W> {
    /// An output that writes to `writer`.
    pub(crate) fn to(writer: W) -> Self {
        Self { writer, closed: false }
    }

    /// Whether the reader has closed the output.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Runs `write` and flushes its output. Does nothing after the reader has closed the output.
    ///
    /// # Errors
    ///
    /// Those of the writer, except that the reader has closed the output.
    pub(crate) fn put(&mut self, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
        if self.closed {
            return Ok(());
        }
        let mut buffered = io::BufWriter::new(&mut self.writer);
        let done = write(&mut buffered).and_then(|()| buffered.flush());
        // Taken apart, because dropping it would write the rest again.
        drop(buffered.into_parts());
        match done {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                self.closed = true;
                Ok(())
            }
            other => other,
        }
    }
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

/// Writes the closing report, with the flows if there are any to list.
///
/// # Errors
///
/// Those of the writer.
pub(crate) fn write_closing<W: Write>(
    out: &mut Output<W>,
    format: OutputFormat,
    snapshot: &Snapshot,
    flows: Option<(View<'_>, &[Flow])>,
    style: Style,
) -> io::Result<()> {
    match (format, flows) {
        (OutputFormat::Json, Some((view, flows))) => {
            return out.put(|out| json::write_report_with_flows(out, snapshot, &view, flows));
        }
        (_, Some((view, flows))) => {
            out.put(|out| flows.iter().try_for_each(|flow| write_flow(out, format, &view, flow, style)))?;
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
pub(crate) fn write_report<W: Write>(
    out: &mut Output<W>,
    format: OutputFormat,
    snapshot: &Snapshot,
    interval: Option<&Interval<'_>>,
    style: Style,
) -> io::Result<()> {
    out.put(|out| match format {
        OutputFormat::Text => out.write_all(text::draw(snapshot, interval, style).as_bytes()),
        OutputFormat::Json | OutputFormat::Jsonl => json::write_report(out, snapshot, interval),
    })
}

/// Writes the report of a check with its expectations.
///
/// # Errors
///
/// Those of the writer.
pub(crate) fn write_check<W: Write>(
    out: &mut Output<W>,
    format: OutputFormat,
    snapshot: &Snapshot,
    checked: &Checked<'_>,
    style: Style,
) -> io::Result<()> {
    match format {
        OutputFormat::Text => out.put(|out| {
            out.write_all(text::draw(snapshot, None, style).as_bytes())?;
            out.write_all(text::draw_check(checked, style).as_bytes())
        }),
        OutputFormat::Json | OutputFormat::Jsonl => out.put(|out| json::write_check(out, snapshot, checked)),
    }
}

/// Writes the expectations and their judgements as text.
///
/// # Errors
///
/// Those of the writer.
pub(crate) fn write_expectations<W: Write>(
    out: &mut Output<W>,
    checked: &Checked<'_>,
    style: Style,
) -> io::Result<()> {
    out.put(|out| out.write_all(text::draw_expectations(checked, style).as_bytes()))
}

#[cfg(test)]
mod tests {
    use std::io::{self, ErrorKind, Write};

    use super::Output;

    /// A writer that takes `left` bytes, then fails.
    struct Pipe {
        left: usize,
        fails_with: ErrorKind,
    }

    impl Write for Pipe {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.left == 0 {
                return Err(self.fails_with.into());
            }
            let taken = bytes.len().min(self.left);
            self.left -= taken;
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_closed_pipe_ends_the_output_without_an_error() {
        let mut output = Output::to(Pipe { left: 10, fails_with: ErrorKind::BrokenPipe });
        assert!(output.put(|out| out.write_all(b"0123")).is_ok() && !output.is_closed());
        assert!(output.put(|out| out.write_all(&[b'x'; 100_000])).is_ok() && output.is_closed());
        assert!(output.put(|_| panic!("it must not be called any more")).is_ok());
    }

    #[test]
    fn a_full_disk_is_an_error() {
        let mut output = Output::to(Pipe { left: 0, fails_with: ErrorKind::StorageFull });
        let error = output.put(|out| out.write_all(b"0123")).expect_err("there is no room");
        assert_eq!(error.kind(), ErrorKind::StorageFull);
        assert!(!output.is_closed());
    }
}
