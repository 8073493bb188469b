//! A second process, which stays what this program was started as. This one gives up its privileges once it
//! has attached, and the command of a check and its files are the caller's.
//!
//! ```text
//! handshake ── fork ──▶ helper ─▶ the command, and all that it starts
//!   attaches,  ◀─ status ─┤
//!   confined   ── order ─▶├─▶ the files, the figures
//! ```
//!
//! What it may do is settled before anything is attached: this command, these files, or these figures, and for a
//! service the files that its configuration names when it is read again, and the hosts of its collectors. No
//! order names a program, a path or a host.
//! One that reads figures has nothing else to do, and is left with CAP_NET_ADMIN. It ends with this process,
//! however that ends; unless it is told to [leave](Helper::leave) them,
//! it first ends everything that the command has started.

mod blocks;
mod evidence;
mod family;
mod lines;
mod message;

use std::fs;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::mem;
use std::net::{IpAddr, TcpListener, ToSocketAddrs as _};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::{Child, ExitStatus, exit};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use handshake_agent::confine::{Confinement, shed_capabilities};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Signal, geteuid};
use rustix::thread::CapabilitySet;
use tokio::io::Interest;

use crate::caller::User;
use crate::file::{CurrentFile, FileAtEnd, write_new};
use crate::output::Patience;
use crate::time::stamp;
pub(crate) use blocks::Blocks;
pub(crate) use evidence::EvidenceFiles;
use family::Family;
pub(crate) use lines::{Lines, LinesDuty};
use message::{Answer, Order, WORD};

/// Reads figures.
pub(crate) type Reader = Box<dyn FnMut() -> io::Result<Vec<u8>>>;
/// Starts the command of a check.
pub(crate) type Starter = Box<dyn FnMut() -> io::Result<Child>>;

/// The longest that figures are waited for.
const LONGEST_READING: Duration = Duration::from_secs(2);

/// The longest that rows, blocks and evidence are written for a process that has ended.
const LONGEST_WRITING: Duration = Duration::from_secs(2);

/// What the helper is to do.
#[derive(Default)]
pub(crate) struct Duties {
    /// The command that it starts and stops.
    pub(crate) command: Option<Starter>,
    /// The files that it writes, at most 255.
    pub(crate) files: Vec<FileDuty>,
    /// The file of events that it writes.
    pub(crate) lines: Option<LinesDuty>,
    /// The folder of the recording that it writes.
    pub(crate) recording: Option<PathBuf>,
    /// The folder of the evidence that it writes.
    pub(crate) evidence: Option<PathBuf>,
    /// How it reads the configuration again.
    pub(crate) reread: Option<Rereader>,
    /// The hosts whose addresses it finds, at most 255.
    pub(crate) hosts: Vec<String>,
    /// The figures that it reads; it then has no other duty.
    pub(crate) figures: Option<FiguresDuty>,
}

/// Reads the configuration again, as the helper's user. What it names is opened by the helper itself, so no
/// order names a path.
pub(crate) type Rereader = Box<dyn FnMut() -> io::Result<Reread> + Send>;

/// The configuration as it is now.
pub(crate) struct Reread {
    /// Its text.
    pub(crate) text: String,
    /// The file that is written from now on in the place of the first; `None` for none.
    pub(crate) file: Option<PathBuf>,
    /// A socket that listens at another address than before.
    pub(crate) socket: Option<TcpListener>,
}

/// Figures that take CAP_NET_ADMIN.
pub(crate) struct FiguresDuty {
    /// Reads them.
    pub(crate) read: Reader,
    /// What the helper is left with before it reads.
    pub(crate) confinement: Option<Confinement>,
}

/// A file that a helper writes.
#[derive(Clone, Debug)]
pub(crate) enum FileDuty {
    /// This one, once.
    AtEnd(PathBuf),
    /// To the end of this one, once.
    Append(PathBuf),
    /// New ones in the working directory, named by the time.
    New,
    /// This one, again and again: each content takes the place of the one before. It goes with the process that the
    /// helper serves, however that ends.
    Each(PathBuf),
}

/// The word that has the configuration read again.
const REREAD: [u8; 1] = [1];

/// The helper, as the process that started it sees it.
pub(crate) struct Helper {
    orders: UnixStream,
    files: UnixStream,
    lines: UnixStream,
    blocks: UnixStream,
    evidence: UnixStream,
    rereads: UnixStream,
    names: UnixStream,
    duties: usize,
}

impl Helper {
    /// Starts the helper. Only this thread may run.
    ///
    /// # Errors
    ///
    /// The system's: there is no room for a process.
    pub(crate) fn start(duties: Duties) -> io::Result<Self> {
        let is_alone = is_soon_alone();
        debug_assert!(is_alone, "another thread runs");
        let count = duties.files.len();
        let (orders, their_orders) = UnixStream::pair()?;
        let (files, their_files) = UnixStream::pair()?;
        let (lines, their_lines) = UnixStream::pair()?;
        let (blocks, their_blocks) = UnixStream::pair()?;
        let (evidence, their_evidence) = UnixStream::pair()?;
        let (rereads, their_rereads) = UnixStream::pair()?;
        let (names, their_names) = UnixStream::pair()?;
        // SAFETY: no other thread runs, so none holds a lock that the child would wait for.
        match unsafe { libc::fork() } {
            -1 => Err(io::Error::last_os_error()),
            0 => {
                // Its own copies would keep the helper from seeing the end of this process.
                drop((orders, files, lines, blocks, evidence, rereads, names));
                let (orders, files, lines) = (their_orders, their_files, their_lines);
                let (blocks, evidence) = (their_blocks, their_evidence);
                let (rereads, names) = (their_rereads, their_names);
                let theirs = Streams { orders, files, lines, blocks, evidence, rereads, names };
                let served =
                    catch_unwind(AssertUnwindSafe(|| Helping::new(duties, theirs).and_then(Helping::serve)));
                exit(i32::from(!matches!(served, Ok(Ok(())))))
            }
            _ => Ok(Self { orders, files, lines, blocks, evidence, rereads, names, duties: count }),
        }
    }

    /// The command, which the helper starts when it is told to.
    ///
    /// # Errors
    ///
    /// The system's. Outside a tokio runtime it panics.
    pub(crate) fn command(&self) -> io::Result<Ordered> {
        Ok(Ordered { stream: listening(&self.orders)?, word: [0; WORD], read: 0 })
    }

    /// Where this process hands over what is to be written.
    ///
    /// # Errors
    ///
    /// One of the files cannot be written, or the system's.
    pub(crate) fn files(&self) -> io::Result<Files> {
        let (files, ready) = self.looked_at_files()?;
        ready.into_iter().collect::<io::Result<()>>()?;
        Ok(files)
    }

    /// The same, and for each of the files whether it can be written.
    ///
    /// # Errors
    ///
    /// The system's.
    pub(crate) fn looked_at_files(&self) -> io::Result<(Files, Vec<io::Result<()>>)> {
        let mut files = Files { stream: Some(self.files.try_clone()?) };
        let ready = (0..self.duties).map(|_| files.answer(Patience::Endless).map(drop)).collect();
        Ok((files, ready))
    }

    /// Where this process hands over lines for the file of events.
    ///
    /// # Errors
    ///
    /// The file cannot be written, or the system's.
    pub(crate) fn lines(&self) -> io::Result<Lines> {
        Lines::ready(self.lines.try_clone()?)
    }

    /// Where this process hands over blocks of the recording.
    ///
    /// # Errors
    ///
    /// The folder cannot be written, or the system's.
    pub(crate) fn blocks(&self) -> io::Result<Blocks> {
        Blocks::ready(self.blocks.try_clone()?)
    }

    /// Where this process hands over evidence.
    ///
    /// # Errors
    ///
    /// There is no folder and none can be made, or the system's.
    pub(crate) fn evidence(&self) -> io::Result<EvidenceFiles> {
        EvidenceFiles::ready(self.evidence.try_clone()?)
    }

    /// Where this process has the configuration read again.
    ///
    /// # Errors
    ///
    /// The system's.
    pub(crate) fn rereads(&self) -> io::Result<Rereads> {
        Ok(Rereads(self.rereads.try_clone()?))
    }

    /// What ends with a helper that starts no command and reads no figures.
    ///
    /// # Errors
    ///
    /// The system's. Outside a tokio runtime it panics.
    pub(crate) fn life(&self) -> io::Result<Life> {
        Ok(Life(listening(&self.orders)?))
    }

    /// Where this process has the addresses of hosts found.
    ///
    /// # Errors
    ///
    /// The system's.
    pub(crate) fn names(&self) -> io::Result<Names> {
        Ok(Names(self.names.try_clone()?))
    }

    /// The figures, which the helper reads when it is told to.
    ///
    /// # Errors
    ///
    /// The system's.
    pub(crate) fn figures(self) -> io::Result<Figures> {
        self.orders.set_read_timeout(Some(LONGEST_READING))?;
        Ok(Figures(Some(self)))
    }

    /// Ends the helper, and leaves what the command has left behind.
    pub(crate) fn leave(&self) {
        // An error means that it has ended.
        let _ = (&self.orders).write(&Order::Leave.encode());
    }
}

/// Whether this is the only thread. The kernel lists one that has ended for a moment.
fn is_soon_alone() -> bool {
    const LOOKS: usize = 1_000;
    const BETWEEN_LOOKS: Duration = Duration::from_millis(1);
    let is_alone = || fs::read_dir("/proc/self/task").map_or(true, |tasks| tasks.count() <= 1);
    (0..LOOKS).any(|_| {
        is_alone() || {
            thread::sleep(BETWEEN_LOOKS);
            false
        }
    })
}

/// The same stream for the event loop.
fn listening(stream: &UnixStream) -> io::Result<tokio::net::UnixStream> {
    let stream = stream.try_clone()?;
    stream.set_nonblocking(true)?;
    tokio::net::UnixStream::from_std(stream)
}

/// What ends with the helper: a stream by which nothing comes.
pub(crate) struct Life(tokio::net::UnixStream);

impl Life {
    /// Waits for the end. Cancel-safe.
    pub(crate) async fn end(&self) {
        // An error is the end, too.
        while self.0.readable().await.is_ok() {
            match self.0.try_read(&mut [0]) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Ok(_) | Err(_) => return,
            }
        }
    }
}

/// A command in the hands of the helper.
pub(crate) struct Ordered {
    stream: tokio::net::UnixStream,
    word: [u8; WORD],
    read: usize,
}

impl Ordered {
    /// Starts the command.
    ///
    /// # Errors
    ///
    /// It cannot be started.
    pub(crate) async fn start(&mut self) -> io::Result<()> {
        self.tell(Order::Start).await?;
        match self.answer().await? {
            Answer::Started => Ok(()),
            Answer::Refused(errno) => Err(io::Error::from_raw_os_error(errno)),
            Answer::Ended(_) => Err(ErrorKind::InvalidData.into()),
        }
    }

    /// Waits for the command to end. Cancel-safe.
    ///
    /// # Errors
    ///
    /// The helper has ended before.
    pub(crate) async fn ended(&mut self) -> io::Result<ExitStatus> {
        match self.answer().await? {
            Answer::Ended(status) => Ok(ExitStatus::from_raw(status)),
            Answer::Started | Answer::Refused(_) => Err(ErrorKind::InvalidData.into()),
        }
    }

    /// Has the command stopped by `signal`, and all that it has started by SIGTERM; what is left after a
    /// while is killed.
    ///
    /// # Errors
    ///
    /// The helper has ended.
    pub(crate) async fn stop(&self, signal: Signal) -> io::Result<()> {
        self.tell(Order::Stop(signal.as_raw())).await
    }

    /// Has the command killed, with all that it has started.
    ///
    /// # Errors
    ///
    /// The helper has ended.
    pub(crate) async fn kill(&self) -> io::Result<()> {
        self.tell(Order::Kill).await
    }

    async fn tell(&self, order: Order) -> io::Result<()> {
        loop {
            self.stream.writable().await?;
            match self.stream.try_write(&order.encode()) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                told => return told.map(drop),
            }
        }
    }

    async fn answer(&mut self) -> io::Result<Answer> {
        while self.read < WORD {
            self.stream.ready(Interest::READABLE).await?;
            match self.stream.try_read(&mut self.word[self.read..]) {
                Ok(0) => return Err(io::Error::new(ErrorKind::UnexpectedEof, "its parent was killed")),
                Ok(read) => self.read += read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        self.read = 0;
        Answer::decode(self.word).ok_or_else(|| ErrorKind::InvalidData.into())
    }
}

/// Files in the hands of the helper.
pub(crate) struct Files {
    /// `None` after one that was not written in time.
    stream: Option<UnixStream>,
}

impl Files {
    /// Has the first file written; returns its name where the helper chose it.
    ///
    /// # Errors
    ///
    /// Those of the file system; [`ErrorKind::TimedOut`] where patience ended.
    pub(crate) fn write(&mut self, content: &[u8], patience: Patience) -> io::Result<String> {
        self.write_to(0, content, patience)
    }

    /// Has the file of this place among the duties written.
    ///
    /// # Errors
    ///
    /// As [`write`](Self::write).
    pub(crate) fn write_to(&mut self, at: u8, content: &[u8], patience: Patience) -> io::Result<String> {
        let stream = self.stream.as_mut().ok_or_else(late)?;
        stream.write_all(&[at]).and_then(|()| message::send(stream, content)).map_err(without_helper)?;
        self.answer(patience)
    }

    fn answer(&mut self, patience: Patience) -> io::Result<String> {
        let stream = self.stream.as_mut().ok_or_else(late)?;
        let limit = match patience {
            Patience::Endless => None,
            Patience::Without(limit) => Some(limit),
        };
        stream.set_read_timeout(limit)?;
        match message::receive_result(stream) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.stream = None;
                Err(late())
            }
            answer => answer.map_err(without_helper)?.map(|name| String::from_utf8_lossy(&name).into_owned()),
        }
    }
}

/// The configuration in the hands of the helper. It has a stream of its own: a file that is being written may
/// take for ever.
pub(crate) struct Rereads(UnixStream);

impl Rereads {
    /// Has it read again: its text, and a socket where it names another address.
    ///
    /// # Errors
    ///
    /// It cannot be read, is wrong, or names what cannot be opened.
    pub(crate) fn reread(&mut self) -> io::Result<(String, Option<TcpListener>)> {
        self.0.write_all(&REREAD).map_err(without_helper)?;
        let text = message::receive_result(&mut self.0).map_err(without_helper)??;
        let socket = message::receive_descriptor(&self.0)?.map(TcpListener::from);
        Ok((String::from_utf8_lossy(&text).into_owned(), socket))
    }
}

/// Names of hosts in the hands of the helper.
pub(crate) struct Names(UnixStream);

impl Names {
    /// Finds the addresses of the host at this place among the duties. It may take its time.
    ///
    /// # Errors
    ///
    /// The name is not known, or cannot be looked up now.
    pub(crate) fn addresses(&mut self, at: u8) -> io::Result<Vec<IpAddr>> {
        self.0.write_all(&[at]).map_err(without_helper)?;
        let found = message::receive_result(&mut self.0).map_err(without_helper)??;
        let found = String::from_utf8_lossy(&found);
        Ok(found.split(' ').filter_map(|address| address.parse().ok()).collect())
    }
}

/// Figures in the hands of the helper.
pub(crate) struct Figures(
    /// `None` after a reading that was not done in time.
    Option<Helper>,
);

impl Figures {
    /// Reads them.
    ///
    /// # Errors
    ///
    /// The kernel's; [`ErrorKind::TimedOut`] where it took too long.
    pub(crate) fn read(&mut self) -> io::Result<Vec<u8>> {
        let mut helper = self.0.take().ok_or_else(late)?;
        helper.orders.write_all(&Order::Read.encode())?;
        let read = message::receive_result(&mut helper.orders);
        let read =
            read.map_err(|error| if error.kind() == ErrorKind::WouldBlock { late() } else { error })?;
        self.0 = Some(helper);
        read
    }
}

/// An error of a stream: its other end has ended.
fn without_helper(error: io::Error) -> io::Error {
    io::Error::new(error.kind(), "the helper process has ended")
}

fn late() -> io::Error {
    io::Error::new(ErrorKind::TimedOut, "it takes too long")
}

/// The helper's ends of the streams.
struct Streams {
    orders: UnixStream,
    files: UnixStream,
    lines: UnixStream,
    blocks: UnixStream,
    evidence: UnixStream,
    rereads: UnixStream,
    names: UnixStream,
}

/// The helper's own side.
struct Helping {
    orders: UnixStream,
    files: UnixStream,
    rereads: UnixStream,
    names: UnixStream,
    command: Option<Starter>,
    family: Option<Family>,
    /// Another file takes the place of the first where the configuration names one.
    files_to_write: Arc<Mutex<Vec<ToWrite>>>,
    /// Ends with the last line of events, the last block of the recording, and the last evidence.
    appended: Vec<Receiver<()>>,
    reread: Option<Arc<Mutex<Rereader>>>,
    hosts: Vec<String>,
    read: Option<Reader>,
}

/// A file of the duties.
enum ToWrite {
    /// `None` where it cannot be written, or has been.
    Once(Option<FileAtEnd>),
    /// New ones.
    New,
    /// This one each time.
    Each(Arc<CurrentFile>),
}

impl ToWrite {
    fn each(path: PathBuf) -> Self {
        Self::Each(Arc::new(CurrentFile::new(path)))
    }

    /// What a file tells is over.
    fn retire(&self) {
        if let Self::Each(file) = self {
            file.retire();
        }
    }
}

/// Takes over the file that a configuration names. Returns those that it names no more.
fn take_over(files: &mut Vec<ToWrite>, file: Option<PathBuf>) -> Vec<ToWrite> {
    let is_it = |each: &ToWrite| match each {
        ToWrite::Each(each) => file.as_deref() == Some(each.path()),
        ToWrite::Once(_) | ToWrite::New => false,
    };
    let (kept, gone) = mem::take(files).into_iter().partition(is_it);
    *files = kept;
    if files.is_empty() {
        files.extend(file.map(ToWrite::each));
    }
    gone
}

/// `handshake-20260301T120341.000Z.json`: milliseconds distinguish two files.
fn name_of_now() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("handshake-{}.json", stamp(u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)))
}

/// Leaves the helper with what it needs for a command and files.
fn become_caller(has_command: bool) -> io::Result<()> {
    match User::calling() {
        // Root starts the command as the caller, and ends what has become another user since.
        Some(caller) if !has_command => caller.assume()?,
        Some(_) | None => {}
    }
    if !geteuid().is_root() {
        shed_capabilities(CapabilitySet::empty())?;
    }
    Ok(())
}

/// What comes from the process that the helper serves.
enum Told {
    Order(Order),
    /// A file's content.
    Content,
    /// The configuration is to be read again.
    Reread,
    /// A host's addresses are wanted.
    Name,
    /// Nothing in time.
    Nothing,
    /// The other process has ended.
    End,
}

impl Helping {
    fn new(duties: Duties, streams: Streams) -> io::Result<Self> {
        let Streams { orders, files, lines, blocks, evidence, rereads, names } = streams;
        let Duties { command, files: wanted, lines: to_append, recording, reread, hosts, figures, .. } =
            duties;
        debug_assert!(figures.is_none() || command.is_none() && wanted.is_empty(), "it has another duty");
        // The terminal's signals, and a service manager's, are for the other process, whose end it waits for.
        rustix::process::setsid()?;
        for signal in [libc::SIGINT, libc::SIGTERM] {
            // SAFETY: "ignore" is no function, and no memory is passed.
            unsafe { libc::signal(signal, libc::SIG_IGN) };
        }
        let read = match figures {
            Some(FiguresDuty { read, confinement }) => {
                confinement.map(|confinement| confinement.apply()).transpose().map_err(io::Error::other)?;
                Some(read)
            }
            None => {
                become_caller(command.is_some())?;
                None
            }
        };
        let (family, files_to_write) = (None, Arc::default());
        let lines = to_append.map(|duty| lines::serve(lines, duty)).transpose()?;
        let recording = recording.map(|folder| blocks::serve(blocks, folder)).transpose()?;
        let evidence = duties.evidence.map(|folder| evidence::serve(evidence, folder)).transpose()?;
        let appended = lines.into_iter().chain(recording).chain(evidence).collect();
        let reread = reread.map(|reread| Arc::new(Mutex::new(reread)));
        let mut helping = Self {
            orders,
            files,
            rereads,
            names,
            command,
            family,
            files_to_write,
            appended,
            reread,
            hosts,
            read,
        };
        wanted.into_iter().try_for_each(|duty| helping.prepare_file(&duty))?;
        Ok(helping)
    }

    /// Says whether a file can be written.
    fn prepare_file(&mut self, duty: &FileDuty) -> io::Result<()> {
        let prepared = match duty {
            FileDuty::AtEnd(path) => FileAtEnd::prepare(path).map(Some).map(ToWrite::Once),
            FileDuty::Append(path) => FileAtEnd::append(path).map(Some).map(ToWrite::Once),
            FileDuty::New => Ok(ToWrite::New),
            FileDuty::Each(path) => FileAtEnd::prepare(path).map(|_| ToWrite::each(path.clone())),
        };
        let (file, ready) = match prepared {
            Ok(file) => (file, Ok(String::new())),
            Err(error) => (ToWrite::Once(None), Err(error)),
        };
        locked(&self.files_to_write).push(file);
        message::send_result(&mut self.files, ready)
    }

    fn serve(mut self) -> io::Result<()> {
        /// How often orphans that have ended are buried.
        const BURY_EVERY: Duration = Duration::from_secs(1);
        loop {
            match self.listen(BURY_EVERY)? {
                Told::Order(Order::Start) => self.start()?,
                Told::Order(Order::Stop(signal)) => self.end_by(signal)?,
                Told::Order(Order::Kill) => self.kill()?,
                Told::Order(Order::Leave) => return Ok(()),
                Told::Order(Order::Read) => self.read_figures()?,
                Told::Content => self.write_file()?,
                Told::Reread => self.read_again()?,
                Told::Name => self.find_addresses()?,
                Told::Nothing => {}
                Told::End => {
                    // What was handed over is written, unless the file system hangs.
                    for appended in &self.appended {
                        // It sends nothing: this is its end, or that of the time.
                        let _ = appended.recv_timeout(LONGEST_WRITING);
                    }
                    self.retire_files()?;
                    return self.end_by(libc::SIGTERM);
                }
            }
            self.tell_end()?;
        }
    }

    /// Waits for an order, a content, the end of the other process or that of the command.
    fn listen(&mut self, limit: Duration) -> io::Result<Told> {
        let main = self.family.as_ref().and_then(Family::main);
        let flags = PollFlags::IN;
        let streams = [&self.orders, &self.files, &self.rereads, &self.names];
        let mut all: Vec<_> = streams.into_iter().map(|stream| PollFd::new(stream, flags)).collect();
        all.extend(main.map(|main| PollFd::from_borrowed_fd(main.as_fd(), flags)));
        let limit = rustix::time::Timespec::try_from(limit).map_err(io::Error::other)?;
        match poll(&mut all, Some(&limit)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let [orders, files, rereads, names] = [0, 1, 2, 3].map(|at: usize| !all[at].revents().is_empty());
        drop(all);
        if orders {
            let mut word = [0; WORD];
            let told = match self.orders.read_exact(&mut word) {
                Ok(()) => Order::decode(word).map_or(Told::End, Told::Order),
                Err(_) => Told::End,
            };
            return Ok(told);
        }
        Ok(match (files, rereads, names) {
            (true, ..) => Told::Content,
            (false, true, _) => Told::Reread,
            (false, false, true) => Told::Name,
            (false, false, false) => Told::Nothing,
        })
    }

    fn start(&mut self) -> io::Result<()> {
        let started =
            self.command.as_mut().ok_or_else(|| ErrorKind::NotFound.into()).and_then(|start| start());
        let answer = match started.and_then(|child| Family::of(&child)) {
            Ok(family) => {
                self.family = Some(family);
                Answer::Started
            }
            Err(error) => Answer::Refused(error.raw_os_error().unwrap_or(libc::EIO)),
        };
        self.tell(answer)
    }

    fn read_figures(&mut self) -> io::Result<()> {
        let read = self.read.as_mut().ok_or_else(|| ErrorKind::NotFound.into()).and_then(|read| read());
        message::send_result(&mut self.orders, read)
    }

    /// Tells the command's end, once.
    fn tell_end(&mut self) -> io::Result<()> {
        match self.family.as_mut().and_then(Family::news) {
            Some(status) => self.tell(Answer::Ended(status)),
            None => Ok(()),
        }
    }

    /// Stops the command and its family; an order to kill it, or the end of the other process, cuts the
    /// waiting short.
    fn end_by(&mut self, signal: i32) -> io::Result<()> {
        let Some(mut family) = self.family.take() else { return Ok(()) };
        family.begin_to_stop(signal);
        let mut lasts = true;
        while lasts && family.keeps_stopping() {
            match self.listen(family::LOOK_EVERY)? {
                Told::Order(Order::Kill) => lasts = false,
                // It has ended, or is about to: there is no report to wait for, and the command has its
                // grace.
                Told::End => thread::sleep(family::LOOK_EVERY),
                Told::Order(_) | Told::Content | Told::Reread | Told::Name | Told::Nothing => {}
            }
        }
        family.kill();
        self.family = Some(family);
        Ok(())
    }

    fn kill(&mut self) -> io::Result<()> {
        self.family.as_mut().map_or(Ok(()), |family| {
            family.kill();
            Ok(())
        })
    }

    fn tell(&mut self, answer: Answer) -> io::Result<()> {
        self.orders.write_all(&answer.encode())
    }

    /// Writes on a thread, because a file may take for ever.
    fn write_file(&mut self) -> io::Result<()> {
        let mut at = [0];
        let content = self.files.read_exact(&mut at).and_then(|()| message::receive(&mut self.files));
        let Ok(content) = content else { return Ok(()) };
        let mut answers = self.files.try_clone()?;
        let mut files = locked(&self.files_to_write);
        let file = files.get_mut(usize::from(at[0]));
        let nothing = |()| String::new();
        let write: Box<dyn FnOnce() -> io::Result<String> + Send> = match file {
            Some(ToWrite::Once(file)) => match file.take() {
                Some(file) => Box::new(move || file.write(content, Patience::Endless).map(nothing)),
                None => Box::new(|| Err(ErrorKind::NotFound.into())),
            },
            Some(ToWrite::New) => Box::new(move || {
                let name = name_of_now();
                write_new(PathBuf::from(&name), content, Patience::Endless).map(|()| name)
            }),
            Some(ToWrite::Each(file)) => {
                let file = Arc::clone(file);
                Box::new(move || file.write(content).map(nothing))
            }
            None => Box::new(|| Err(ErrorKind::NotFound.into())),
        };
        thread::Builder::new().spawn(move || {
            // The other process may have ended.
            let _ = message::send_result(&mut answers, write());
        })?;
        Ok(())
    }

    /// What the files tell is over with the process that had them written. A file that takes for ever is left.
    fn retire_files(&self) -> io::Result<()> {
        let files = mem::take(&mut *locked(&self.files_to_write));
        let (retired, done) = channel();
        thread::Builder::new().spawn(move || {
            files.iter().for_each(ToWrite::retire);
            // The receiver may have lost its patience.
            let _ = retired.send(());
        })?;
        let _ = done.recv_timeout(LONGEST_WRITING);
        Ok(())
    }

    /// Finds a host's addresses, on a thread: servers of names may not answer.
    fn find_addresses(&mut self) -> io::Result<()> {
        /// None that connects; it takes one to ask.
        const PORT: u16 = 0;
        let (mut at, mut answers) = ([0], self.names.try_clone()?);
        let told = self.names.read_exact(&mut at);
        let (Ok(()), Some(host)) = (told, self.hosts.get(usize::from(at[0])).cloned()) else {
            return Ok(());
        };
        thread::Builder::new().spawn(move || {
            let found = (host.as_str(), PORT).to_socket_addrs();
            let found = found.map(|all| all.map(|end| end.ip().to_string()).collect::<Vec<_>>().join(" "));
            let found = found.map_err(|error| io::Error::other(format!("{host}: {error}")));
            // The other process may have ended.
            let _ = message::send_result(&mut answers, found);
        })?;
        Ok(())
    }

    /// Reads the configuration again, and takes over the file that it names: on a thread, because a file may
    /// take for ever to read too.
    fn read_again(&mut self) -> io::Result<()> {
        let (mut word, mut answers) = (REREAD, self.rereads.try_clone()?);
        let told = self.rereads.read_exact(&mut word);
        let (Ok(()), Some(reread)) = (told, self.reread.clone()) else { return Ok(()) };
        let files = Arc::clone(&self.files_to_write);
        thread::Builder::new().spawn(move || -> io::Result<()> {
            // The other process may have ended.
            match locked(&reread)() {
                Ok(Reread { text, file, socket }) => {
                    let gone = take_over(&mut locked(&files), file);
                    message::send_result(&mut answers, Ok(text))?;
                    message::send_descriptor(&answers, socket.as_ref().map(AsFd::as_fd))?;
                    gone.iter().for_each(ToWrite::retire);
                    Ok(())
                }
                Err(error) => message::send_result(&mut answers, Err::<String, _>(error)),
            }
        })?;
        Ok(())
    }
}

fn locked<T: ?Sized>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}
