//! The file of events in the hands of the helper: a stream of its own, and a thread that waits for the file
//! system.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use super::{message, without_helper};
use crate::event_file::EventFile;
use crate::file::for_caller;

/// The file of events.
#[derive(Clone, Debug)]
pub(crate) struct LinesDuty {
    /// Its path.
    pub(crate) path: PathBuf,
    /// Room for it and for the closed ones, bytes.
    pub(crate) keep: u64,
}

/// Where this process hands over lines for the file of events.
pub(crate) struct Lines(UnixStream);

impl Lines {
    /// Takes the stream over; the helper has looked whether the file can be written.
    pub(super) fn ready(mut stream: UnixStream) -> io::Result<Self> {
        message::receive_result(&mut stream)??;
        Ok(Self(stream))
    }

    /// Has lines appended, as a whole or not at all; without any it is looked whether the file is old. Returns
    /// what went wrong beside, or nothing.
    ///
    /// # Errors
    ///
    /// Those of the file system; the helper has ended.
    pub(crate) fn append(&mut self, lines: &[u8]) -> io::Result<String> {
        message::send(&mut self.0, lines).map_err(without_helper)?;
        let beside = message::receive_result(&mut self.0).map_err(without_helper)??;
        Ok(String::from_utf8_lossy(&beside).into_owned())
    }
}

/// Opens the file, says whether that was done, and appends what comes by the stream until its end. What is
/// returned ends with it.
///
/// # Errors
///
/// The system's: there is no room for a thread.
pub(super) fn serve(mut stream: UnixStream, duty: LinesDuty) -> io::Result<Receiver<()>> {
    let (lasts, ended) = channel::<()>();
    thread::Builder::new().name("events".to_owned()).spawn(move || -> io::Result<()> {
        let _lasts = lasts;
        let mut file = match EventFile::open(&duty.path, duty.keep).map_err(for_caller) {
            Ok(file) => file,
            Err(error) => return message::send_result(&mut stream, Err::<String, _>(error)),
        };
        message::send_result(&mut stream, Ok(""))?;
        // Lines that were cut short are those of a process that was killed.
        while let Ok(lines) = message::receive(&mut stream) {
            let beside =
                file.append(&lines).map(|beside| beside.map_or_else(String::new, |why| why.to_string()));
            message::send_result(&mut stream, beside)?;
        }
        Ok(())
    })?;
    Ok(ended)
}
