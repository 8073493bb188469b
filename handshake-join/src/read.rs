//! Reads the lines of an account's files.

use std::io::{self, BufRead, BufReader, ErrorKind, Read};
use std::path::Path;

use handshake_capture::Unpacked;
use serde::de::DeserializeSeed as _;
use serde_json::Deserializer;

use crate::account::{Account, Gathered};
use crate::error::JoinError;
use crate::files::{AccountFiles, Room};
use crate::line::{FlowLine, Kind, NoRoom, ReportLine, ReportSeed, UnlistedLine};

/// The schema that is read.
const SCHEMA: u64 = 1;
/// How each flow begins.
const FLOW: &[u8] = br#"{"type":"flow""#;
/// Bytes that are read at once.
const CHUNK: usize = 1 << 20;
/// A longer line is a report with its flows, and is read without being kept.
const LONGEST: usize = 1 << 20;

/// Reads an account.
///
/// # Errors
///
/// Those of the file system; a file has neither an attempt nor a report, or a report of another schema; all files
/// are empty; there are more attempts than there is room for.
pub fn read(files: &AccountFiles, room: &Room) -> Result<Account, JoinError> {
    let (mut gathered, mut is_told) = (Gathered::default(), false);
    for path in &files.paths {
        let before = (gathered.attempts.len(), gathered.runs());
        let unpacked = Unpacked::open(path).map_err(|error| JoinError::unreadable(path, error))?;
        let mut file = FileReading { gathered: &mut gathered, room, path, lines: 0, is_empty: true };
        let read = file.read(BufReader::with_capacity(CHUNK, unpacked));
        let FileReading { lines, is_empty, .. } = file;
        match read {
            Ok(()) => {}
            // A stream that is cut short says so in this way.
            Err(ReadStop::Failed(error)) if error.kind() == ErrorKind::UnexpectedEof => {
                gathered.truncated += 1
            }
            Err(ReadStop::Failed(error)) => return Err(JoinError::unreadable(path, error)),
            Err(ReadStop::Schema(schema)) => {
                return Err(JoinError::Schema { name: path.display().to_string(), schema });
            }
            Err(ReadStop::NoRoom) => return Err(JoinError::NoRoom { bytes: room.bytes() }),
        }
        // As the newest file of a folder is, before something happens.
        if is_empty {
            continue;
        }
        is_told = true;
        if lines == 0 && gathered.attempts.len() == before.0 {
            return Err(JoinError::Nothing { name: path.display().to_string() });
        }
        gathered.without_report += u64::from(gathered.runs() == before.1);
    }
    if !is_told {
        return Err(JoinError::Nothing { name: files.name.clone() });
    }
    Ok(Account::of(files.name.clone(), gathered))
}

/// Why reading ends.
enum ReadStop {
    Failed(io::Error),
    Schema(u64),
    NoRoom,
}

impl From<NoRoom> for ReadStop {
    fn from(_: NoRoom) -> Self {
        Self::NoRoom
    }
}

struct FileReading<'a> {
    gathered: &'a mut Gathered,
    room: &'a Room,
    path: &'a Path,
    /// Lines that are handshake's.
    lines: u64,
    /// Whether there is nothing in it but white space.
    is_empty: bool,
}

/// What a piece of text is.
enum Piece {
    /// It was taken in, or is of no interest.
    Done,
    /// An object that goes on in the next line, or is cut.
    Unfinished,
    /// No JSON.
    Wrong,
}

impl FileReading<'_> {
    fn read(&mut self, mut from: impl BufRead) -> Result<(), ReadStop> {
        // An object may be written over several lines.
        let (mut pending, mut line) = (Vec::new(), Vec::new());
        loop {
            line.clear();
            let read = from.by_ref().take(LONGEST as u64).read_until(b'\n', &mut line);
            if read.map_err(ReadStop::Failed)? == 0 {
                break;
            }
            self.is_empty &= line.trim_ascii_start().is_empty();
            // An object begins at the beginning of a line, and ends there where it has several.
            let begins = line[0] == b'{';
            if begins && !pending.is_empty() {
                self.pass_over(&mut pending);
            }
            let is_long = line.len() == LONGEST && line.last() != Some(&b'\n');
            let is_first = pending.is_empty();
            pending.extend_from_slice(&line);
            if is_long || pending.len() > LONGEST {
                self.long(&pending, &mut from)?;
                pending.clear();
            } else if is_first || line[0] == b'}' {
                match self.piece(&pending)? {
                    Piece::Done => pending.clear(),
                    Piece::Unfinished => {}
                    Piece::Wrong => self.pass_over(&mut pending),
                }
            }
        }
        self.gathered.truncated += u64::from(!pending.is_empty());
        Ok(())
    }

    fn pass_over(&mut self, pending: &mut Vec<u8>) {
        self.gathered.unreadable += 1;
        pending.clear();
    }

    fn piece(&mut self, text: &[u8]) -> Result<Piece, ReadStop> {
        if text.starts_with(FLOW) {
            return self.flow(text);
        }
        if text.trim_ascii().is_empty() {
            return Ok(Piece::Done);
        }
        let kind = match serde_json::from_slice::<Kind>(text) {
            Ok(kind) => kind,
            Err(error) if error.is_eof() => return Ok(Piece::Unfinished),
            Err(_) => return Ok(Piece::Wrong),
        };
        match kind.name.as_str() {
            "flow" => self.flow(text),
            "report" => {
                let mut full = false;
                let report = self.report(Deserializer::from_slice(text), &mut full);
                self.take(report, full)
            }
            "unlisted" => {
                self.lines += 1;
                if let Ok(UnlistedLine { half_open, ended }) = serde_json::from_slice(text) {
                    self.gathered.unlisted += half_open + ended;
                }
                Ok(Piece::Done)
            }
            _ => Ok(Piece::Done),
        }
    }

    fn flow(&mut self, text: &[u8]) -> Result<Piece, ReadStop> {
        match serde_json::from_slice::<FlowLine>(text) {
            Ok(flow) => {
                self.lines += 1;
                keep(self.gathered, self.room, &flow)?;
                Ok(Piece::Done)
            }
            Err(error) if error.is_eof() => Ok(Piece::Unfinished),
            Err(_) => Ok(Piece::Wrong),
        }
    }

    /// A line too long to be kept, whose first part was read.
    fn long(&mut self, first: &[u8], from: &mut impl BufRead) -> Result<(), ReadStop> {
        let mut full = false;
        let report = self.report(Deserializer::from_reader(first.chain(&mut *from)), &mut full);
        let is_cut = report.as_ref().is_err_and(serde_json::Error::is_eof);
        if let Err(error) = &report
            && error.is_io()
        {
            let kind = error.io_error_kind().unwrap_or(ErrorKind::Other);
            return Err(ReadStop::Failed(io::Error::new(kind, format!("{}: {error}", self.path.display()))));
        }
        match self.take(report, full)? {
            Piece::Done => {}
            Piece::Unfinished => self.gathered.truncated += 1,
            Piece::Wrong => self.gathered.unreadable += 1,
        }
        if is_cut {
            return Ok(());
        }
        from.skip_until(b'\n').map(drop).map_err(ReadStop::Failed)
    }

    fn report<'de, R: serde_json::de::Read<'de>>(
        &mut self,
        mut from: Deserializer<R>,
        full: &mut bool,
    ) -> Result<ReportLine, serde_json::Error> {
        let Self { gathered, room, .. } = self;
        let mut sink = |flow: &FlowLine| {
            let kept = keep(gathered, room, flow);
            *full |= kept.is_err();
            kept
        };
        ReportSeed(&mut sink).deserialize(&mut from)
    }

    fn take(&mut self, report: Result<ReportLine, serde_json::Error>, full: bool) -> Result<Piece, ReadStop> {
        match report {
            _ if full => Err(ReadStop::NoRoom),
            Ok(report) if !report.is_report => Ok(Piece::Done),
            Ok(report) => match report.schema {
                Some(SCHEMA) => {
                    self.lines += 1;
                    self.gathered.report(report);
                    Ok(Piece::Done)
                }
                other => Err(ReadStop::Schema(other.unwrap_or(0))),
            },
            Err(error) if error.is_eof() => Ok(Piece::Unfinished),
            Err(_) => Ok(Piece::Wrong),
        }
    }
}

/// Keeps the attempt that a flow tells of.
fn keep(gathered: &mut Gathered, room: &Room, flow: &FlowLine) -> Result<(), NoRoom> {
    let Some(attempt) = flow.attempt() else { return Ok(()) };
    if !room.take() {
        return Err(NoRoom);
    }
    let attempts = &mut gathered.attempts;
    if attempts.len() == attempts.capacity() {
        // By a quarter, so that no more than that is reserved for nothing.
        attempts.reserve_exact((attempts.len() / 4).max(1 << 16));
    }
    attempts.push(attempt);
    Ok(())
}
