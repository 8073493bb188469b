//! What is written: reports as text and JSON, flows, and the one place that writes them.

pub(crate) mod json;
pub(crate) mod text;

use std::io::{self, ErrorKind, Write};

use handshake_agent::model::flow::{Flow, View};
use handshake_agent::model::snapshot::{Interval, Snapshot};

use crate::check::Checked;
use text::Style;

/// How reports are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OutputFormat {
    /// For people.
    Text,
    /// One object at the end.
    Json,
    /// One object per line.
    Jsonl,
}

/// Where data goes. Who reads it may leave at any time (`handshake | head`): that ends the output,
/// and is no error.
pub(crate) struct Output<W> {
    writer: W,
    closed: bool,
}

impl<W: Write> Output<W> {
    /// Writes to `writer`.
    pub(crate) fn to(writer: W) -> Self {
        Self { writer, closed: false }
    }

    /// Has the reader gone? Then there is nothing left to do.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Writes what `write` writes, all of it before this returns. Nothing happens once the reader has gone.
    ///
    /// # Errors
    ///
    /// Those of the writer, but for a reader that has gone.
    pub(crate) fn put(&mut self, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
        if self.closed {
            return Ok(());
        }
        let mut buffered = io::BufWriter::new(&mut self.writer);
        let done = write(&mut buffered).and_then(|()| buffered.flush());
        // Dropped as a whole, it would try to write the rest again.
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

/// One flow, in the format asked for.
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

/// The last report, and the flows when they were asked for.
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

/// A report, in the format asked for.
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

/// The report of a check and what was expected of it, in the format asked for.
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

/// What was expected and how it came out, for people.
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

    /// Takes `left` bytes, then fails.
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
    fn a_reader_that_has_gone_ends_the_output_quietly() {
        let mut output = Output::to(Pipe { left: 10, fails_with: ErrorKind::BrokenPipe });
        assert!(output.put(|out| out.write_all(b"0123")).is_ok() && !output.is_closed());
        assert!(output.put(|out| out.write_all(&[b'x'; 100_000])).is_ok() && output.is_closed());
        assert!(output.put(|_| panic!("nothing is written any more")).is_ok());
    }

    #[test]
    fn a_full_disk_is_an_error() {
        let mut output = Output::to(Pipe { left: 0, fails_with: ErrorKind::StorageFull });
        let error = output.put(|out| out.write_all(b"0123")).expect_err("there is no room");
        assert_eq!(error.kind(), ErrorKind::StorageFull);
        assert!(!output.is_closed());
    }
}
