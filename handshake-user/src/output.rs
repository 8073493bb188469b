//! Where reports and messages are written. An [`Output`] waits for its reader, as the report on a capture
//! may. A [`Lane`] never makes the live loop wait: a thread writes, and what it has not written yet is
//! bounded.
//!
//! ```text
//! loop ─▶ put ─▶ queue: ROOM and one piece at most ─▶ thread ─▶ write(2), which may block for ever
//! ```
//!
//! A reader may close the output at any time (`handshake | head`), and a terminal may go away. That ends the
//! output and is not an error.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IsTerminal as _, Write};
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use tokio::sync::Notify;

/// Bytes that may wait in a lane before it takes no more. A piece is handed over as a whole, so that at most
/// a piece more waits.
const ROOM: usize = 1 << 20;
/// A piece of many parts, as of ended attempts, ends once it has this many bytes.
pub(crate) const PIECE: usize = 4 << 20;
/// Bytes of one write: the capacity of a pipe. A write that has returned is progress.
const STEP: usize = 64 << 10;

/// How long a wait for the reader lasts without progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    /// For ever: a signal ends the process.
    Endless,
    /// This long: the process is to end.
    Without(Duration),
}

impl Patience {
    /// After a signal, which ends the process within two seconds.
    pub(crate) const ENDING: Self = Self::Without(Duration::from_secs(1));
}

/// Standard output or standard error, unbuffered. Errors name the file behind it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target {
    descriptor: BorrowedFd<'static>,
    name: &'static str,
    /// Asked for once: a terminal that has gone is none any more.
    is_terminal: bool,
}

impl Target {
    /// Standard output.
    pub(crate) fn stdout() -> Self {
        Self::of(rustix::stdio::stdout(), "standard output")
    }

    /// Standard error.
    pub(crate) fn stderr() -> Self {
        Self::of(rustix::stdio::stderr(), "standard error")
    }

    fn of(descriptor: BorrowedFd<'static>, name: &'static str) -> Self {
        Self { descriptor, name, is_terminal: descriptor.is_terminal() }
    }

    /// Whether it was a terminal that has gone.
    pub(crate) fn has_hung_up(self) -> bool {
        let mut look = [PollFd::from_borrowed_fd(self.descriptor, PollFlags::empty())];
        let looked = poll(&mut look, Some(&rustix::time::Timespec::default()));
        self.is_terminal && looked.is_ok() && look[0].revents().intersects(PollFlags::HUP | PollFlags::ERR)
    }

    /// The path of the file; else the name of the stream.
    fn path(self) -> String {
        let link = std::fs::read_link(format!("/proc/self/fd/{}", self.descriptor.as_raw_fd()));
        let path = link.ok().filter(|path| path.is_absolute());
        path.map_or_else(|| self.name.to_owned(), |path| path.display().to_string())
    }

    /// A terminal that has gone is a closed output.
    fn explain(self, error: io::Error) -> io::Error {
        if self.is_terminal && error.raw_os_error() == Some(libc::EIO) {
            return ErrorKind::BrokenPipe.into();
        }
        // An interrupted write is repeated.
        if is_closed(&error) || error.kind() == ErrorKind::Interrupted {
            return error;
        }
        io::Error::new(error.kind(), format!("{}: {error}", self.path()))
    }
}

impl Write for Target {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match rustix::io::write(self.descriptor, bytes) {
                Ok(taken) => return Ok(taken),
                // Another process that shares it has set it to non-blocking.
                Err(rustix::io::Errno::AGAIN) => {
                    poll(&mut [PollFd::from_borrowed_fd(self.descriptor, PollFlags::OUT)], None)?;
                }
                Err(error) => return Err(self.explain(error.into())),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// An output whose writes wait for the reader.
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
        self.closed = done.as_ref().is_err_and(is_closed);
        unless_closed(done)
    }
}

fn is_closed(error: &io::Error) -> bool {
    error.kind() == ErrorKind::BrokenPipe
}

fn unless_closed(done: io::Result<()>) -> io::Result<()> {
    if done.as_ref().is_err_and(is_closed) { Ok(()) } else { done }
}

/// An output whose writes do not wait for the reader. Clones are the same output.
#[derive(Clone)]
pub(crate) struct Lane(Arc<Shared>);

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    /// There is a piece to write, or the lane has ended.
    fed: Condvar,
    /// A write has returned, or the lane has ended.
    progress: Condvar,
    ended: Notify,
}

#[derive(Default)]
struct Queue {
    pieces: VecDeque<Vec<u8>>,
    /// Bytes that are not written yet.
    waiting: usize,
    /// Writes that have returned.
    steps: u64,
    /// Calls that wait for progress.
    watchers: usize,
    end: Option<End>,
}

/// Why a lane has ended.
struct End {
    kind: ErrorKind,
    message: String,
}

impl Queue {
    /// The error that the lane has ended with.
    fn check(&self) -> io::Result<()> {
        match &self.end {
            Some(end) if end.kind == ErrorKind::BrokenPipe => Err(end.kind.into()),
            Some(end) => Err(io::Error::new(end.kind, end.message.clone())),
            None => Ok(()),
        }
    }
}

impl Lane {
    /// A lane to `writer`, which is called on a thread of its own and ends the lane at its first error.
    ///
    /// # Errors
    ///
    /// The system's: there is no room for a thread.
    pub(crate) fn to(writer: impl Write + Send + 'static) -> io::Result<Self> {
        Self::start(|| (), writer, End::of)
    }

    /// A lane that leaves out what cannot be written, and lasts. Its thread calls `prepare` first.
    ///
    /// # Errors
    ///
    /// Those of [`to`](Self::to).
    pub(crate) fn regardless(
        prepare: impl FnOnce() + Send + 'static,
        writer: impl Write + Send + 'static,
    ) -> io::Result<Self> {
        Self::start(prepare, writer, |_| None)
    }

    fn start(
        prepare: impl FnOnce() + Send + 'static,
        writer: impl Write + Send + 'static,
        end: fn(&io::Error) -> Option<End>,
    ) -> io::Result<Self> {
        let shared = Arc::<Shared>::default();
        let lane = Self(Arc::clone(&shared));
        thread::Builder::new().name("writer".to_owned()).spawn(move || {
            prepare();
            shared.write_to(writer, end);
        })?;
        Ok(lane)
    }

    /// Whether it takes another piece.
    pub(crate) fn has_room(&self) -> bool {
        self.0.lock().waiting < ROOM
    }

    /// Whether all is written.
    pub(crate) fn is_idle(&self) -> bool {
        self.0.lock().waiting == 0
    }

    /// Whether the reader has closed the output.
    ///
    /// # Errors
    ///
    /// The error that has ended the output.
    pub(crate) fn is_closed(&self) -> io::Result<bool> {
        let done = self.0.lock().check();
        let closed = done.is_err();
        unless_closed(done).map(|()| closed)
    }

    /// Waits until the output has ended. Cancel-safe.
    pub(crate) async fn ended(&self) {
        loop {
            let ended = self.0.ended.notified();
            if self.0.lock().end.is_some() {
                return;
            }
            ended.await;
        }
    }

    /// Ends the output as its reader does when it closes it.
    pub(crate) fn close(&self) {
        self.0.end(End { kind: ErrorKind::BrokenPipe, message: String::new() });
    }

    /// Hands a piece over. Nothing is written after the output has ended.
    pub(crate) fn push(&self, piece: Vec<u8>) {
        if piece.is_empty() {
            return;
        }
        let mut queue = self.0.lock();
        if queue.end.is_none() {
            queue.waiting += piece.len();
            queue.pieces.push_back(piece);
            self.0.fed.notify_one();
        }
    }

    /// Hands over what `write` writes, as a whole. Does nothing and returns false where there is no room for
    /// it.
    ///
    /// # Errors
    ///
    /// Those of `write`.
    pub(crate) fn put(&self, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<bool> {
        let has_room = self.has_room();
        if has_room {
            let mut piece = Vec::new();
            write(&mut piece)?;
            self.push(piece);
        }
        Ok(has_room)
    }

    /// Hands over all that `write` writes, piece by piece, and waits until it is written.
    ///
    /// # Errors
    ///
    /// Those of `write` and of the writer, except that the reader has closed the output;
    /// [`ErrorKind::TimedOut`] where patience ended.
    pub(crate) fn finish(
        &self,
        patience: Patience,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut waiting = Waiting { lane: self, patience, piece: Vec::new() };
        let done = write(&mut waiting).and_then(|()| waiting.flush());
        unless_closed(done.and_then(|()| self.settle(patience)))
    }

    /// Waits until all is written.
    ///
    /// # Errors
    ///
    /// The error that has ended the output; [`ErrorKind::TimedOut`] where patience ended.
    pub(crate) fn settle(&self, patience: Patience) -> io::Result<()> {
        self.wait(patience, |queue| queue.waiting == 0)
    }

    fn wait(&self, patience: Patience, until: impl Fn(&Queue) -> bool) -> io::Result<()> {
        self.0.lock().watchers += 1;
        let waited = self.watch(patience, until);
        self.0.lock().watchers -= 1;
        waited
    }

    fn watch(&self, patience: Patience, until: impl Fn(&Queue) -> bool) -> io::Result<()> {
        let mut queue = self.0.lock();
        let mut progress = (queue.steps, Instant::now());
        loop {
            queue.check()?;
            if until(&queue) {
                return Ok(());
            }
            if queue.steps != progress.0 {
                progress = (queue.steps, Instant::now());
            }
            queue = match patience {
                Patience::Endless => self.0.progress.wait(queue).unwrap_or_else(PoisonError::into_inner),
                Patience::Without(most) => {
                    let left = most.saturating_sub(progress.1.elapsed());
                    if left.is_zero() {
                        let lost = format!("not read: {} bytes are left out", queue.waiting);
                        return Err(io::Error::new(ErrorKind::TimedOut, lost));
                    }
                    let waited = self.0.progress.wait_timeout(queue, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }
}

impl End {
    #[expect(clippy::unnecessary_wraps, reason = "one of two answers to an error")]
    fn of(error: &io::Error) -> Option<Self> {
        Some(Self { kind: error.kind(), message: error.to_string() })
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self, end: End) {
        let mut queue = self.lock();
        queue.end.get_or_insert(end);
        queue.pieces.clear();
        queue.waiting = 0;
        drop(queue);
        self.fed.notify_all();
        self.progress.notify_all();
        self.ended.notify_waiters();
    }

    /// Writes each piece, until the lane has ended.
    fn write_to(&self, mut writer: impl Write, end: fn(&io::Error) -> Option<End>) {
        while let Some(piece) = self.next() {
            for step in piece.chunks(STEP) {
                if let Err(error) = writer.write_all(step)
                    && let Some(end) = end(&error)
                {
                    return self.end(end);
                }
                let mut queue = self.lock();
                queue.steps += 1;
                queue.waiting = queue.waiting.saturating_sub(step.len());
                if queue.watchers > 0 {
                    self.progress.notify_all();
                }
            }
        }
    }

    /// Waits for the next piece; `None` once the lane has ended.
    fn next(&self) -> Option<Vec<u8>> {
        let mut queue = self.lock();
        loop {
            if queue.end.is_some() {
                return None;
            }
            if let Some(piece) = queue.pieces.pop_front() {
                return Some(piece);
            }
            queue = self.fed.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Hands over what is written to it, and waits while there is no room.
struct Waiting<'a> {
    lane: &'a Lane,
    patience: Patience,
    piece: Vec<u8>,
}

impl Write for Waiting<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.piece.extend_from_slice(bytes);
        if self.piece.len() >= STEP {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.lane.wait(self.patience, |queue| queue.waiting < ROOM)?;
        self.lane.push(std::mem::take(&mut self.piece));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, ErrorKind, Read, Write};
    use std::time::{Duration, Instant};

    use super::{Lane, Output, Patience, ROOM};

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

    #[test]
    fn a_lane_that_is_not_read_takes_pieces_up_to_its_room() {
        let (reader, writer) = io::pipe().expect("a pipe");
        let lane = Lane::to(writer).expect("a thread");
        let (mut taken, piece) = (0, vec![b'x'; 300_000]);
        while lane.put(|out| out.write_all(&piece)).expect("it is open") {
            taken += piece.len();
            assert!(taken <= ROOM + 2 * piece.len(), "{taken} bytes");
        }
        assert!(!lane.is_idle() && !lane.is_closed().expect("it is open"));
        let started = Instant::now();
        let patience = Patience::Without(Duration::from_millis(50));
        let error = lane.finish(patience, |_| Ok(())).expect_err("it is not read");
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert!(started.elapsed() < Duration::from_secs(5));

        let read = std::thread::spawn(move || {
            let mut all = Vec::new();
            { reader }.read_to_end(&mut all).map(|_| all)
        });
        lane.finish(Patience::Endless, |out| out.write_all(b"the last")).expect("it is read");
        lane.close();
        let all = read.join().expect("no panic").expect("it is read");
        assert_eq!(all.len(), taken + 8);
        assert!(all.ends_with(b"the last"));
    }

    #[test]
    fn a_lane_ends_with_its_readers_end_or_its_error() {
        let (reader, writer) = io::pipe().expect("a pipe");
        drop(reader);
        let lane = Lane::to(writer).expect("a thread");
        lane.finish(Patience::Endless, |out| out.write_all(b"x")).expect("closed is no error");
        assert!(lane.is_closed().expect("closed is no error"));

        let full = || Pipe { left: 1, fails_with: ErrorKind::StorageFull };
        let lane = Lane::to(full()).expect("a thread");
        let error = lane.finish(Patience::Endless, |out| out.write_all(b"xy")).expect_err("it is full");
        assert_eq!(error.kind(), ErrorKind::StorageFull);
        assert!(lane.is_closed().is_err());

        let lane = Lane::regardless(|| (), full()).expect("a thread");
        lane.finish(Patience::Endless, |out| out.write_all(&[0; 200_000])).expect("errors are ignored");
        assert!(lane.is_idle() && !lane.is_closed().expect("it is open"));
    }
}
