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
use handshake_record::{Reel, encode};

/// Blocks that wait to be written.
const WAITING: usize = 4;
/// The longest that the last blocks are written: a signal ends the process within two seconds.
const LAST_BLOCKS: Duration = Duration::from_secs(1);
/// Segments that are kept open for a look back: as many as the folder has, unless it is written anew.
const SEGMENTS: usize = 64;

/// A recording that is being made.
pub(crate) struct Recording {
    path: String,
    blocks: SyncSender<Vec<u8>>,
    told: Receiver<io::Result<Option<File>>>,
    /// Ends with the last block.
    ended: Receiver<()>,
    /// What is recorded, where it is looked at.
    reel: Option<Reel>,
    is_ill: bool,
}

impl Recording {
    /// Begins it. `is_seen` says whether it is also looked at.
    ///
    /// # Errors
    ///
    /// The folder cannot be written; there is no room for a thread.
    pub(crate) fn start(helper: &Helper, path: &Path, is_seen: bool) -> Result<Self, CommandError> {
        let shown = path.display().to_string();
        let fault = |source| CommandError::ReportFile { option: "--record", path: shown.clone(), source };
        let handed = helper.blocks().map_err(fault)?;
        let (blocks, waiting) = sync_channel(WAITING);
        let (tell, told) = channel();
        let (lasts, ended) = channel();
        let run = move || hand_over(handed, &waiting, &tell, lasts);
        let started = thread::Builder::new().name("recording".to_owned()).spawn(run);
        started.map_err(AgentError::system("start the thread for the recording"))?;
        Ok(Self { path: shown, blocks, told, ended, reel: is_seen.then(Reel::default), is_ill: false })
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
        Ok(said)
    }

    /// Takes in what became of the blocks before. Says the first failure of several, and the first success after
    /// them.
    fn listen(&mut self, session: &mut Session) -> Option<String> {
        let mut said = None;
        for told in self.told.try_iter() {
            match (told, self.is_ill) {
                (Err(error), was_ill) => {
                    session.record_anew();
                    self.is_ill = true;
                    if !was_ill {
                        said = Some(format!("--record {}: {error}; moments are left out", self.path));
                    }
                }
                (Ok(segment), was_ill) => {
                    self.is_ill = false;
                    if was_ill {
                        said = Some(format!("--record {} is written again", self.path));
                    }
                    if let (Some(segment), Some(reel)) = (segment, &mut self.reel) {
                        // What cannot be read is not there for a look back.
                        let _ = reel.add(segment);
                        reel.keep(SEGMENTS);
                    }
                }
            }
        }
        if let Some(reel) = &mut self.reel {
            let _ = reel.follow();
        }
        said
    }

    /// What has been recorded, where it is looked at.
    pub(crate) const fn reel(&self) -> Option<&Reel> {
        self.reel.as_ref()
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
