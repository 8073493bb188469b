//! Files that a command writes for its user: written as the calling user, and never through a symbolic link.
//!
//! A thread of its own becomes that user, because users are a thread's to the kernel, and because a file may
//! take for ever to write: a pipe without a reader, a file system that hangs.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::thread;

use rustix::fs::{Access, access};
use rustix::process::geteuid;

use crate::caller::User;
use crate::output::Patience;

/// The permissions of a new file, of which the umask takes some.
const MODE: u32 = 0o666;

/// A file that is written at the end. Until then nothing is changed: an earlier file stays as it is.
pub(crate) struct FileAtEnd {
    content: Sender<Vec<u8>>,
    written: Receiver<io::Result<()>>,
}

impl FileAtEnd {
    /// Looks whether the file can be written.
    ///
    /// # Errors
    ///
    /// The calling user may not write it, which the error says; or it is a folder or a symbolic link.
    pub(crate) fn prepare(path: &Path) -> io::Result<Self> {
        Self::in_place(path, Place::of)
    }

    /// Opens a file whose earlier content stays, before the new one.
    ///
    /// # Errors
    ///
    /// As those of [`prepare`](Self::prepare), and where it is no ordinary file.
    pub(crate) fn append(path: &Path) -> io::Result<Self> {
        Self::in_place(path, Place::at_end_of)
    }

    fn in_place(path: &Path, find: fn(&Path) -> io::Result<Place>) -> io::Result<Self> {
        let (content, contents) = channel::<Vec<u8>>();
        let (ready, look) = channel();
        let inherited = inherited(path)?;
        let path = path.to_owned();
        let written = as_caller(move || {
            let place = match inherited {
                Some(descriptor) => Ok(Place::Open(descriptor)),
                None => find(&path).map_err(for_caller),
            };
            let place = match place {
                Ok(place) => place,
                Err(error) => {
                    // The receiver waits for one of the two.
                    let _ = ready.send(Err(error));
                    return Ok(());
                }
            };
            let _ = ready.send(Ok(()));
            // Without a content the command has failed, and the file stays.
            contents.recv().map_or(Ok(()), |content| place.write(&path, &content))
        })?;
        match look.recv() {
            Ok(ready) => ready.map(|()| Self { content, written }),
            // It could not become the calling user.
            Err(_) => Err(wait(&written, Patience::Endless).err().unwrap_or_else(|| ErrorKind::Other.into())),
        }
    }

    /// Writes the file.
    ///
    /// # Errors
    ///
    /// Those of the file system; [`ErrorKind::TimedOut`] where patience ended.
    pub(crate) fn write(self, content: Vec<u8>, patience: Patience) -> io::Result<()> {
        // It waits for the content, or has failed and says so.
        let _ = self.content.send(content);
        wait(&self.written, patience)
    }
}

/// A file that tells what is now: each content takes the place of the one before, and the last one goes when what
/// it tells is over.
pub(crate) struct CurrentFile {
    path: PathBuf,
    /// Device and inode of the ordinary file that was written last. Locked while one is written.
    written: Mutex<Option<(u64, u64)>>,
}

impl CurrentFile {
    pub(crate) const fn new(path: PathBuf) -> Self {
        Self { path, written: Mutex::new(None) }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a content.
    ///
    /// # Errors
    ///
    /// As [`FileAtEnd::prepare`], and those of the file system.
    pub(crate) fn write(&self, content: Vec<u8>) -> io::Result<()> {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        FileAtEnd::prepare(&self.path)?.write(content, Patience::Endless)?;
        *written = self.there();
        Ok(())
    }

    /// Removes the file, or empties it where it cannot be removed. One that another process has put in its place
    /// since stays. Does nothing before the first content, and waits while one is written.
    pub(crate) fn retire(&self) {
        let written = self.written.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(written) = written else { return };
        if self.there() == Some(written) && fs::remove_file(&self.path).is_err() {
            // What cannot be written any more stays as it is.
            let _ = options().open(&self.path).and_then(|file| file.set_len(0));
        }
    }

    fn there(&self) -> Option<(u64, u64)> {
        let there = fs::symlink_metadata(&self.path).ok().filter(fs::Metadata::is_file);
        there.map(|there| (there.dev(), there.ino()))
    }
}

/// Reads a text as the calling user: under sudo, no message shows what that user may not read.
///
/// # Errors
///
/// Those of the file system; it is no ordinary file, is longer than `most` bytes, or is not UTF-8.
pub(crate) fn read_text(path: &Path, most: u64) -> io::Result<String> {
    let owned = path.to_owned();
    let (sender, read) = channel();
    wait(
        &as_caller(move || {
            let mut text = String::new();
            // A pipe would be waited for.
            let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&owned);
            let file = ordinary(file.map_err(for_caller)?)?;
            if file.take(most + 1).read_to_string(&mut text)? as u64 > most {
                return Err(io::Error::new(
                    ErrorKind::FileTooLarge,
                    format!("it is longer than {most} bytes"),
                ));
            }
            // The receiver is there until this has ended.
            let _ = sender.send(text);
            Ok(())
        })?,
        Patience::Endless,
    )?;
    read.recv().map_err(io::Error::other)
}

/// Writes a new file as the calling user.
///
/// # Errors
///
/// Those of the file system: there is such a file. [`ErrorKind::TimedOut`] where patience ended.
pub(crate) fn write_new(path: PathBuf, content: Vec<u8>, patience: Patience) -> io::Result<()> {
    wait(&as_caller(move || File::create_new(path)?.write_all(&content))?, patience)
}

fn wait(done: &Receiver<io::Result<()>>, patience: Patience) -> io::Result<()> {
    let received = match patience {
        Patience::Endless => done.recv().map_err(RecvTimeoutError::from),
        Patience::Without(most) => done.recv_timeout(most),
    };
    received.unwrap_or_else(|error| {
        Err(match error {
            RecvTimeoutError::Timeout => io::Error::new(ErrorKind::TimedOut, "it takes too long"),
            RecvTimeoutError::Disconnected => ErrorKind::Other.into(),
        })
    })
}

/// Runs `work` on a thread that is the calling user, with that user's groups and without root's capabilities.
fn as_caller(work: impl FnOnce() -> io::Result<()> + Send + 'static) -> io::Result<Receiver<io::Result<()>>> {
    let (sender, done) = channel();
    thread::Builder::new().name("file".to_owned()).spawn(move || {
        let caller = User::calling().map_or(Ok(()), |user| user.assume().map_err(io::Error::from));
        let result = caller.and_then(|()| work());
        // The receiver may have lost its patience.
        let _ = sender.send(result);
    })?;
    Ok(done)
}

/// Root may write what the calling user may not: the error names this thread's user.
pub(crate) fn for_caller(error: io::Error) -> io::Error {
    let uid = geteuid();
    if error.kind() != ErrorKind::PermissionDenied || uid.is_root() {
        return error;
    }
    io::Error::new(error.kind(), format!("{error} (as user {})", uid.as_raw()))
}

/// How a file is written.
enum Place {
    /// Beside its name, and renamed when it is complete. Holds the file of this name, if there is one, for
    /// names that cannot be renamed to.
    Beside(Option<File>),
    /// Over the file's content, where no other file can be made in its folder.
    Over(File),
    /// A device, or a pipe, which is opened when there is something to write.
    Device,
    /// A descriptor that the calling user has opened, or one that appends.
    Open(OwnedFd),
}

impl Place {
    fn of(path: &Path) -> io::Result<Self> {
        let folder = folder(path);
        let makes_files = || access(folder, Access::WRITE_OK | Access::EXEC_OK).map_err(io::Error::from);
        let kind = match fs::symlink_metadata(path) {
            Ok(metadata) => metadata.file_type(),
            Err(error) if error.kind() == ErrorKind::NotFound && path.file_name().is_some() => {
                return makes_files().map(|()| Self::Beside(None));
            }
            Err(error) => return Err(error),
        };
        if kind.is_symlink() {
            let linked = "it is a symbolic link, and links are not followed";
            return Err(io::Error::new(ErrorKind::InvalidInput, linked));
        }
        if kind.is_file() {
            let file = options().open(path)?;
            return Ok(if makes_files().is_ok() { Self::Beside(Some(file)) } else { Self::Over(file) });
        }
        if kind.is_dir() {
            return Err(ErrorKind::IsADirectory.into());
        }
        if kind.is_socket() {
            return Err(io::Error::new(ErrorKind::InvalidInput, "it is a socket"));
        }
        access(path, Access::WRITE_OK)?;
        Ok(Self::Device)
    }

    fn at_end_of(path: &Path) -> io::Result<Self> {
        let file = options().append(true).create(true).open(path)?;
        Ok(Self::Open(ordinary(file)?.into()))
    }

    fn write(self, path: &Path, content: &[u8]) -> io::Result<()> {
        match self {
            Self::Beside(there) => match (write_beside(path, there.as_ref(), content), there) {
                // A mount point, or another user's file in a folder like /tmp.
                (Err(error), Some(there)) if is_fixed(&error) => write_over(there, content),
                (done, _) => done,
            },
            Self::Over(file) => write_over(file, content),
            Self::Device => {
                let flags = libc::O_NOFOLLOW | libc::O_NOCTTY;
                OpenOptions::new().write(true).custom_flags(flags).open(path)?.write_all(content)
            }
            Self::Open(descriptor) => File::from(descriptor).write_all(content),
        }
    }
}

/// The same file, where it is an ordinary one.
fn ordinary(file: File) -> io::Result<File> {
    if file.metadata()?.is_file() {
        return Ok(file);
    }
    Err(io::Error::new(ErrorKind::InvalidInput, "it is no ordinary file"))
}

/// Opens what is there, without changing it and without waiting.
fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    options
}

fn write_beside(path: &Path, there: Option<&File>, content: &[u8]) -> io::Result<()> {
    let mode =
        there.map_or(Ok(MODE), |file| Ok::<_, io::Error>(file.metadata()?.permissions().mode() & 0o777))?;
    let mut file = tempfile::Builder::new()
        .prefix(".handshake-")
        .suffix(".tmp")
        .permissions(fs::Permissions::from_mode(mode))
        .tempfile_in(folder(path))?;
    file.write_all(content)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

fn write_over(mut file: File, content: &[u8]) -> io::Result<()> {
    file.set_len(0)?;
    file.write_all(content)?;
    file.sync_all()
}

fn is_fixed(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EBUSY | libc::EPERM | libc::EACCES | libc::EXDEV))
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."))
}

/// A duplicate of the descriptor that the path names, as `/dev/stdout`, and `/dev/fd/63` of a shell's `>(…)`.
/// Opening such a path anew could give more than the descriptor does.
fn inherited(path: &Path) -> io::Result<Option<OwnedFd>> {
    let number = match path.to_str() {
        Some("/dev/stdout") => Some(1),
        Some("/dev/stderr") => Some(2),
        Some(path) => {
            let number = path.strip_prefix("/dev/fd/").or_else(|| path.strip_prefix("/proc/self/fd/"));
            number.and_then(|number| number.parse::<u16>().ok()).map(i32::from)
        }
        None => None,
    };
    let duplicate = number.map(|number| {
        // SAFETY: it is used for this call alone, which fails if there is no such descriptor.
        let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
        rustix::io::fcntl_dupfd_cloexec(descriptor, 3)
    });
    Ok(duplicate.transpose()?)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::mpsc::channel;
    use std::thread;
    use std::time::{Duration, Instant};

    use rustix::fs::{CWD, Mode, mkfifoat};

    use super::read_text;

    /// Neither a pipe, which nothing writes to, nor a folder is waited for or read.
    #[test]
    fn a_text_is_read_of_an_ordinary_file_alone() {
        let folder = tempfile::tempdir().expect("there is room");
        let (text, pipe) = (folder.path().join("text"), folder.path().join("pipe"));
        fs::write(&text, "port = 443").expect("there is room");
        mkfifoat(CWD, &pipe, Mode::RUSR | Mode::WUSR).expect("there is room");
        assert_eq!(read_text(&text, 10).expect("it is there"), "port = 443");
        assert!(read_text(&text, 9).is_err(), "it is too long");
        for other in [pipe, folder.path().to_owned()] {
            let (sender, read) = channel();
            thread::spawn(move || sender.send(read_text(&other, 10)));
            let read = read.recv_timeout(Duration::from_secs(20)).expect("it is not waited for");
            assert_eq!(read.expect_err("it is refused").to_string(), "it is no ordinary file");
        }
    }

    /// The helper reads the configuration again while threads of it wait.
    #[test]
    fn a_text_is_read_at_once_beside_other_threads() {
        const READS: u32 = 5;
        let folder = tempfile::tempdir().expect("there is room");
        let text = folder.path().join("text");
        fs::write(&text, "port = 443").expect("there is room");
        let (lasts, ended) = channel::<()>();
        let other = thread::spawn(move || ended.recv());
        let began = Instant::now();
        (0..READS).for_each(|_| drop(read_text(&text, 10).expect("it is there")));
        assert!(began.elapsed() < READS * Duration::from_secs(1), "{:?}", began.elapsed());
        drop(lasts);
        assert!(other.join().expect("it has not panicked").is_err());
    }
}
