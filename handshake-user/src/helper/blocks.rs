//! The recording in the hands of the helper: a stream of its own, and a thread that waits for the file system.

use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use super::{message, without_helper};
use crate::file::for_caller;
use handshake_record::Folder;

/// Where this process hands over blocks of the recording.
pub(crate) struct Blocks(UnixStream);

impl Blocks {
    /// Takes the stream over; the helper has looked whether the folder can be written.
    pub(super) fn ready(mut stream: UnixStream) -> io::Result<Self> {
        message::receive_result(&mut stream)??;
        Ok(Self(stream))
    }

    /// Has a block appended. Returns the segment, for reading, where the block begins a new one.
    ///
    /// # Errors
    ///
    /// Those of the file system; the helper has ended. The next block that is of use is a whole one.
    pub(crate) fn append(&mut self, block: &[u8]) -> io::Result<Option<File>> {
        message::send(&mut self.0, block).map_err(without_helper)?;
        message::receive_result(&mut self.0).map_err(without_helper)??;
        Ok(message::receive_descriptor(&self.0).map_err(without_helper)?.map(File::from))
    }
}

/// Opens the folder, says whether that was done, and appends what comes by the stream until its end. What is
/// returned ends with it.
///
/// # Errors
///
/// The system's: there is no room for a thread.
pub(super) fn serve(mut stream: UnixStream, path: PathBuf) -> io::Result<Receiver<()>> {
    let (lasts, ended) = channel::<()>();
    thread::Builder::new().name("recording".to_owned()).spawn(move || -> io::Result<()> {
        let _lasts = lasts;
        let mut folder = match Folder::open(&path).map_err(for_caller) {
            Ok(folder) => folder,
            Err(error) => return message::send_result(&mut stream, Err::<String, _>(error)),
        };
        message::send_result(&mut stream, Ok(""))?;
        // A block that was cut short is that of a process that was killed.
        while let Ok(block) = message::receive(&mut stream) {
            match folder.append(&block) {
                Ok(segment) => {
                    message::send_result(&mut stream, Ok(""))?;
                    message::send_descriptor(&stream, segment.as_ref().map(|segment| segment.as_fd()))?;
                }
                Err(error) => message::send_result(&mut stream, Err::<String, _>(error))?,
            }
        }
        Ok(())
    })?;
    Ok(ended)
}
