//! What the helper does for the service, which has no file: it writes the file of the metrics, appends rows
//! to that of events, and reads the configuration again. A file system may hang, so threads wait for it, and
//! the loop does not.

use std::future::pending;
use std::io;
use std::net::TcpListener;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use handshake_export::page::Page;
use handshake_export::prometheus::Form;
use handshake_export::queue::Queue;
use handshake_export::rows::Row;
use tokio::sync::mpsc;

use crate::helper::{Files, Life, Lines, Rereads};
use crate::output::Patience;
use crate::report::json;

/// The sink's name in `handshake_export_dropped_total`.
pub(crate) const METRICS_FILE: &str = "metrics_file";
/// The same of the file of events.
pub(crate) const EVENTS_FILE: &str = "events_file";
/// Pages that wait to be written: an older one is worth nothing.
const MOST_PAGES: usize = 1;
/// Rows of one write: far less than what a file has room for.
const ROWS_AT_ONCE: usize = 64;
/// How often it is looked whether the file of events is old, while there are no rows.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// How long the file of events is written without a failure until that is said.
const QUIET: Duration = Duration::from_secs(3);

/// What became of an errand.
pub(crate) enum Done {
    /// The file of the metrics was written, or not.
    Written(io::Result<()>),
    /// Rows were appended to the file of events for the first time since they were not, or the other way; in
    /// words what else went wrong.
    Appended(io::Result<String>),
    /// The configuration as it is now, with a socket where it names another address; or why it stays as it
    /// was.
    Reread(io::Result<(String, Option<TcpListener>)>),
    /// The helper has ended, and does no errand any more.
    HelperEnded,
}

/// The errands of a service.
pub(crate) struct Errands {
    rereads: Arc<Mutex<Rereads>>,
    pages: Arc<Queue<Arc<Page>>>,
    rows: Option<WrittenRows>,
    /// `None` after its end.
    life: Option<Life>,
    done: mpsc::UnboundedReceiver<Done>,
    tell: mpsc::UnboundedSender<Done>,
}

/// Rows that a thread has written.
struct WrittenRows {
    queue: Arc<Queue<Row>>,
    /// Ends with the last row.
    ended: Receiver<()>,
}

impl Errands {
    /// Starts the threads that have files written.
    ///
    /// # Errors
    ///
    /// The system's: there is no room for a thread.
    pub(crate) fn start(
        mut files: Files,
        rereads: Rereads,
        rows: Option<(Lines, Arc<Queue<Row>>)>,
        life: Life,
    ) -> io::Result<Self> {
        let (rereads, pages) = (Arc::new(Mutex::new(rereads)), Arc::new(Queue::<Arc<Page>>::of(MOST_PAGES)));
        let (tell, done) = mpsc::unbounded_channel();
        let rows = rows.map(|(lines, queue)| append_rows(lines, queue, tell.clone())).transpose()?;
        let life = Some(life);
        let errands = Self { rereads, pages: Arc::clone(&pages), rows, life, done, tell: tell.clone() };
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

    /// Waits until the rows are written, after their queue was closed. Returns how many are not: the file takes
    /// too long.
    pub(crate) fn finish(&self, limit: Duration) -> usize {
        let Some(WrittenRows { queue, ended }) = &self.rows else { return 0 };
        // The thread sends nothing: this is its end, or that of the time.
        let _ = ended.recv_timeout(limit);
        queue.waiting()
    }

    /// Waits for the next errand that is done, or for the helper's end. Cancel-safe.
    pub(crate) async fn done(&mut self) -> Done {
        let end = async {
            match &self.life {
                Some(life) => life.end().await,
                None => pending().await,
            }
        };
        tokio::select! {
            Some(done) = self.done.recv() => done,
            () = end => {
                self.life = None;
                Done::HelperEnded
            }
        }
    }
}

/// Starts the thread that has rows appended.
fn append_rows(
    mut lines: Lines,
    queue: Arc<Queue<Row>>,
    tell: mpsc::UnboundedSender<Done>,
) -> io::Result<WrittenRows> {
    let (lasts, ended) = channel::<()>();
    let rows = WrittenRows { queue: Arc::clone(&queue), ended };
    thread::Builder::new().name("rows".to_owned()).spawn(move || {
        let _lasts = lasts;
        let (mut text, mut trouble) = (Vec::new(), Trouble::default());
        while let Some(rows) = queue.take(ROWS_AT_ONCE, trouble.patience()) {
            text.clear();
            for row in &rows {
                // Memory takes all.
                let _ = json::write_row(&mut text, &row.view(), &row.event, row.node());
            }
            let appended = lines.append(&text);
            if appended.is_err() {
                queue.count_dropped(rows.len() as u64);
            }
            if let Some(news) = trouble.news(appended, !rows.is_empty()) {
                // The loop may have ended.
                let _ = tell.send(Done::Appended(news));
            }
        }
    })?;
    Ok(rows)
}

/// What is wrong with the file of events.
#[derive(Default)]
struct Trouble {
    /// The latest failure, where it was not written for a while since.
    failed: Option<Instant>,
    /// Whether rows were written since.
    is_written: bool,
    /// What else went wrong.
    beside: String,
}

impl Trouble {
    fn patience(&self) -> Duration {
        if self.failed.is_some() { QUIET } else { LOOK_EVERY }
    }

    /// What is to be said of a write. On a disk that is nearly full a small one succeeds now and then, so the end
    /// of a failure is told after a while without one.
    fn news(&mut self, appended: io::Result<String>, has_rows: bool) -> Option<io::Result<String>> {
        let beside = match appended {
            Err(error) => {
                self.is_written = false;
                return self.failed.replace(Instant::now()).is_none().then_some(Err(error));
            }
            Ok(beside) => beside,
        };
        self.is_written |= has_rows;
        if self.failed.is_some_and(|failed| self.is_written && failed.elapsed() >= QUIET) {
            self.failed = None;
            return Some(Ok(String::new()));
        }
        let is_new = self.failed.is_none() && beside != self.beside;
        is_new.then(|| {
            self.beside.clone_from(&beside);
            Ok(beside)
        })
    }
}
