//! Evidence in the hands of the helper: a stream of its own, and a thread that waits for the file system.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use super::{message, without_helper};
use crate::caller::User;
use crate::file::for_caller;
use handshake_record::evidence::EvidenceFolder;

/// Where this process hands over evidence.
pub(crate) struct EvidenceFiles(UnixStream);

impl EvidenceFiles {
    /// Takes the stream over; the helper has looked whether there is a folder.
    pub(super) fn ready(mut stream: UnixStream) -> io::Result<Self> {
        message::receive_result(&mut stream)??;
        Ok(Self(stream))
    }

    /// Has both files written, in the place of those before.
    ///
    /// # Errors
    ///
    /// Those of the file system; the helper has ended.
    pub(crate) fn write(&mut self, capture: &[u8], summary: &[u8]) -> io::Result<()> {
        message::send(&mut self.0, capture).map_err(without_helper)?;
        message::send(&mut self.0, summary).map_err(without_helper)?;
        message::receive_result(&mut self.0).map_err(without_helper)?.map(drop)
    }
}

/// Opens the folder as the calling user, says whether that was done, and writes what comes by the stream until its
/// end. What is returned ends with it.
///
/// # Errors
///
/// The system's: there is no room for a thread.
pub(super) fn serve(mut stream: UnixStream, path: PathBuf) -> io::Result<Receiver<()>> {
    let (lasts, ended) = channel::<()>();
    thread::Builder::new().name("evidence".to_owned()).spawn(move || -> io::Result<()> {
        let _lasts = lasts;
        // A helper that starts a command as its caller is root.
        let caller = User::calling().map_or(Ok(()), |user| user.assume().map_err(io::Error::from));
        let folder = match caller.and_then(|()| EvidenceFolder::open(&path).map_err(for_caller)) {
            Ok(folder) => folder,
            Err(error) => return message::send_result(&mut stream, Err::<String, _>(error)),
        };
        message::send_result(&mut stream, Ok(""))?;
        // What was cut short is that of a process that was killed.
        while let Ok(capture) = message::receive(&mut stream) {
            let Ok(summary) = message::receive(&mut stream) else { break };
            let written = folder.write(&capture, &summary).map_err(for_caller);
            message::send_result(&mut stream, written.map(|()| ""))?;
        }
        Ok(())
    })?;
    Ok(ended)
}
