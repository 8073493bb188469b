//! What the helper does for the service, which has no file: it writes the file of the metrics, and reads the
//! configuration again. A file system may hang, so threads wait for it, and the loop does not.

use std::io;
use std::net::TcpListener;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use handshake_export::page::Page;
use handshake_export::prometheus::Form;
use handshake_export::queue::Queue;
use tokio::sync::mpsc;

use crate::helper::{Files, Rereads};
use crate::output::Patience;

/// The sink's name in `handshake_export_dropped_total`.
pub(crate) const METRICS_FILE: &str = "metrics_file";
/// Pages that wait to be written: an older one is worth nothing.
const MOST_PAGES: usize = 1;

/// What became of an errand.
pub(crate) enum Done {
    /// The file of the metrics was written, or not.
    Written(io::Result<()>),
    /// The configuration as it is now, with a socket where it names another address; or why it stays as it
    /// was.
    Reread(io::Result<(String, Option<TcpListener>)>),
}

/// The errands of a service.
pub(crate) struct Errands {
    rereads: Arc<Mutex<Rereads>>,
    pages: Arc<Queue<Arc<Page>>>,
    done: mpsc::UnboundedReceiver<Done>,
    tell: mpsc::UnboundedSender<Done>,
}

impl Errands {
    /// Starts the thread that has files written.
    ///
    /// # Errors
    ///
    /// The system's: there is no room for a thread.
    pub(crate) fn start(mut files: Files, rereads: Rereads) -> io::Result<Self> {
        let (rereads, pages) = (Arc::new(Mutex::new(rereads)), Arc::new(Queue::<Arc<Page>>::of(MOST_PAGES)));
        let (tell, done) = mpsc::unbounded_channel();
        let errands = Self { rereads, pages: Arc::clone(&pages), done, tell: tell.clone() };
        thread::Builder::new().name("errand".to_owned()).spawn(move || {
            loop {
                let text = pages.pop().text(Form::Plain);
                let written = files.write(&text, Patience::Endless).map(drop);
                if tell.send(Done::Written(written)).is_err() {
                    return;
                }
            }
        })?;
        Ok(errands)
    }

    /// Has a page written, in the place of one that still waits.
    pub(crate) fn write(&self, page: Arc<Page>) {
        self.pages.push(page);
    }

    /// Pages that were not written, because the file took too long.
    pub(crate) fn dropped(&self) -> u64 {
        self.pages.dropped()
    }

    /// Has the configuration read again.
    ///
    /// # Errors
    ///
    /// The system's: there is no room for a thread.
    pub(crate) fn reread(&self) -> io::Result<()> {
        let (rereads, tell) = (Arc::clone(&self.rereads), self.tell.clone());
        thread::Builder::new().name("errand".to_owned()).spawn(move || {
            let mut rereads = rereads.lock().unwrap_or_else(PoisonError::into_inner);
            // The loop may have ended.
            let _ = tell.send(Done::Reread(rereads.reread()));
        })?;
        Ok(())
    }

    /// Waits for the next errand that is done. Cancel-safe.
    pub(crate) async fn done(&mut self) -> Done {
        match self.done.recv().await {
            Some(done) => done,
            None => std::future::pending().await,
        }
    }
}
