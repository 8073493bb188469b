//! Has the session recorded, for `--record`: each second it takes a block, and a thread hands it to the helper. A
//! file system may hang, so nothing else waits for it; blocks that there is no room for meanwhile are left out.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, SyncSender, TrySendError, channel, sync_channel};
use std::thread;
use std::time::Duration;

use handshake_agent::Error as AgentError;
use handshake_agent::session::Session;

use crate::error::CommandError;
use crate::helper::{Blocks, Helper};
use handshake_record::encode;

/// Blocks that wait to be written.
const WAITING: usize = 4;
/// The longest that the last blocks are written: a signal ends the process within two seconds.
const LAST_BLOCKS: Duration = Duration::from_secs(1);

/// A recording that is being made.
pub(crate) struct Recording {
    path: String,
    blocks: SyncSender<Vec<u8>>,
    told: Receiver<io::Result<Option<File>>>,
    /// Ends with the last block.
    ended: Receiver<()>,
    /// Where it is looked at.
    show: Option<Box<dyn Fn(File)>>,
    /// Blocks that were handed over and are not written yet.
    waiting: usize,
    is_ill: bool,
}

impl Recording {
    /// Begins it.
    ///
    /// # Errors
    ///
    /// The folder cannot be written; there is no room for a thread.
    pub(crate) fn start(helper: &Helper, path: &Path) -> Result<Self, CommandError> {
        let shown = path.display().to_string();
        let fault = |source| CommandError::ReportFile { option: "--record", path: shown.clone(), source };
        let handed = helper.blocks().map_err(fault)?;
        let (blocks, waiting) = sync_channel(WAITING);
        let (tell, told) = channel();
        let (lasts, ended) = channel();
        let run = move || hand_over(handed, &waiting, &tell, lasts);
        let started = thread::Builder::new().name("recording".to_owned()).spawn(run);
        started.map_err(AgentError::system("start the thread for the recording"))?;
        Ok(Self { path: shown, blocks, told, ended, show: None, waiting: 0, is_ill: false })
    }

    /// Records this moment. Returns what is to be said.
    ///
    /// # Errors
    ///
    /// Those of reading the maps.
    pub(crate) fn record(&mut self, session: &mut Session) -> Result<Option<String>, AgentError> {
        let said = self.listen(session);
        let block = match session.recorded() {
            Ok(block) => block,
            Err(error) if error.is_passing() => return Ok(said),
            Err(error) => return Err(error),
        };
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) =
            self.blocks.try_send(encode(&block))
        {
            session.record_anew();
            let late = || format!("--record {}: it takes too long; moments are left out", self.path);
            let said = said.or_else(|| (!self.is_ill).then(late));
            self.is_ill = true;
            return Ok(said);
        }
        self.waiting += 1;
        Ok(said)
    }

    /// Takes in what became of the blocks before. Says the first failure of several; and that they are over once
    /// all blocks are written: on a disk that is a little too slow some always wait.
    fn listen(&mut self, session: &mut Session) -> Option<String> {
        let mut said = None;
        for told in self.told.try_iter() {
            self.waiting -= 1;
            match told {
                Err(error) => {
                    session.record_anew();
                    if !std::mem::replace(&mut self.is_ill, true) {
                        said = Some(format!("--record {}: {error}; moments are left out", self.path));
                    }
                }
                Ok(segment) => {
                    if self.is_ill && self.waiting == 0 {
                        self.is_ill = false;
                        said = Some(format!("--record {} is written again", self.path));
                    }
                    if let (Some(segment), Some(show)) = (segment, &self.show) {
                        show(segment);
                    }
                }
            }
        }
        said
    }

    /// Shows each segment that begins, from now on.
    pub(crate) fn show_by(&mut self, show: impl Fn(File) + 'static) {
        self.show = Some(Box::new(show));
    }

    /// Records the last moment.
    pub(crate) fn close(&mut self, session: &mut Session) {
        // What cannot be read now is never read, and what is said now is not shown any more.
        let _ = self.record(session);
    }

    /// Waits a little until the last blocks are written.
    pub(crate) fn finish(self) {
        let Self { blocks, ended, .. } = self;
        drop(blocks);
        // It sends nothing: this is its end, or that of the time.
        let _ = ended.recv_timeout(LAST_BLOCKS);
    }
}

/// Hands blocks to the helper until there are no more.
fn hand_over(
    mut handed: Blocks,
    waiting: &Receiver<Vec<u8>>,
    tell: &Sender<io::Result<Option<File>>>,
    _lasts: Sender<()>,
) {
    while let Ok(block) = waiting.recv() {
        if tell.send(handed.append(&block)).is_err() {
            return;
        }
    }
}
