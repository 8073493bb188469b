//! `check --report`: the file is the calling user's, complete or as it was, and never behind a link.

use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use handshake_lab::{Namespace, Process, process, skip_unless_privileged};
use rustix::fs::{CWD, Mode};
use serde_json::Value;

use crate::HANDSHAKE;
use crate::network::{TIMEOUT, loopback, scratch};

/// `nobody`, in the place of a user who called sudo.
pub(crate) const CALLER: u32 = 65534;
/// How sudo, pkexec and doas name the user.
pub(crate) const SUDO: &[(&str, &str)] = &[("SUDO_UID", "65534"), ("SUDO_GID", "65534")];
const CALLS: [&[(&str, &str)]; 3] = [SUDO, &[("PKEXEC_UID", "65534")], &[("DOAS_USER", "nobody")]];
const EARLIER: &str = "{\"good\":1}\n";

/// A folder of its own; removed on drop.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Result<Self> {
        let path = scratch("reports");
        fs::create_dir(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        Ok(Self(path))
    }

    pub(crate) fn of_the_caller() -> Result<Self> {
        let folder = Self::new()?;
        chown(&folder.0, Some(CALLER), Some(CALLER))?;
        Ok(folder)
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn names(&self) -> Result<Vec<String>> {
        let names = fs::read_dir(&self.0)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        names.collect()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// `handshake check -i lo --report FILE WORDS`, with the variables that name a caller.
fn check(host: &Namespace, report: &Path, words: &[&str], caller: &[(&str, &str)]) -> Command {
    let mut command = host.command(HANDSHAKE);
    command.args(["check", "-i", "lo", "--max-flows", "1000", "--report"]).arg(report).args(words);
    command.envs(caller.iter().copied());
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command
}

/// Runs it to its end; returns the exit code and stderr.
fn ended(mut command: Command) -> Result<(Option<i32>, String)> {
    let output = process::output(&mut command)?;
    Ok((output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned()))
}

fn is_report(path: &Path) -> Result<bool> {
    let report: Value = serde_json::from_str(&fs::read_to_string(path)?)?;
    Ok(report["type"] == "report")
}

/// A link in the place of the report is refused, and what it leads to stays.
#[test]
fn a_report_is_not_written_through_a_link() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    let network = loopback()?;
    let (theirs, ours) = (Folder::of_the_caller()?, Folder::new()?);
    let (link, victim) = (theirs.file("report.json"), ours.file("victim"));
    fs::write(&victim, "precious")?;
    symlink(&victim, &link)?;
    for caller in [SUDO, &[]] {
        let (code, said) = ended(check(network.host(), &link, &["--", "true"], caller))?;
        ensure!(code == Some(2) && said.contains("report.json: it is a symbolic link"), "{code:?} {said}");
        ensure!(!said.contains("attached"), "{said}");
    }
    // A link that appears meanwhile is replaced.
    fs::remove_file(&link)?;
    let script = format!("ln -s {} {}", victim.display(), link.display());
    let (code, said) = ended(check(network.host(), &link, &["--", "sh", "-c", &script], SUDO))?;
    ensure!(code == Some(0), "{code:?} {said}");
    ensure!(is_report(&link)? && !fs::symlink_metadata(&link)?.is_symlink());
    ensure!(fs::read_to_string(&victim)? == "precious");
    Ok(())
}

/// Under sudo, pkexec and doas the file is written as the user who called, who may write no more than before.
#[test]
fn a_report_is_written_as_the_caller() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    let network = loopback()?;
    let (theirs, ours) = (Folder::of_the_caller()?, Folder::new()?);
    let report = theirs.file("report.json");
    for caller in CALLS {
        let (code, said) = ended(check(network.host(), &report, &["--", "true"], caller))?;
        ensure!(code == Some(0) && is_report(&report)?, "{caller:?}: {code:?} {said}");
        let metadata = fs::metadata(&report)?;
        ensure!((metadata.uid(), metadata.gid()) == (CALLER, CALLER) && metadata.mode() & 0o133 == 0);
        fs::remove_file(&report)?;
    }
    let (code, said) = ended(check(network.host(), &report, &["--", "true"], SUDO))?;
    ensure!(code == Some(0), "{code:?} {said}");
    ensure!(theirs.names()? == ["report.json"], "{:?}", theirs.names()?);

    // Root's file, in root's folder and in theirs.
    let forbidden = [ours.file("new.json"), ours.file("old.json"), theirs.file("old.json")];
    for path in &forbidden[1..] {
        fs::write(path, EARLIER)?;
    }
    for path in &forbidden {
        let (code, said) = ended(check(network.host(), path, &["--", "true"], SUDO))?;
        ensure!(code == Some(2) && said.contains("Permission denied"), "{}: {code:?} {said}", path.display());
    }
    ensure!(fs::read_to_string(&forbidden[1])? == EARLIER && ours.names()? == ["old.json"]);

    // Their file in a folder where they can make none.
    let file = ours.file("their.json");
    fs::write(&file, EARLIER)?;
    chown(&file, Some(CALLER), Some(CALLER))?;
    let (code, said) = ended(check(network.host(), &file, &["--", "true"], SUDO))?;
    ensure!(code == Some(0) && is_report(&file)? && fs::metadata(&file)?.uid() == CALLER, "{code:?} {said}");
    Ok(())
}

/// A good report of an earlier run stays until there is another, which takes its place at once.
#[test]
fn an_earlier_report_stays_until_there_is_another() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    let network = loopback()?;
    let folder = Folder::new()?;
    let report = folder.file("report.json");
    fs::write(&report, EARLIER)?;
    fs::set_permissions(&report, fs::Permissions::from_mode(0o640))?;
    let earlier = fs::metadata(&report)?.ino();
    for (words, code) in [(&["-i", "nope", "--", "true"][..], 4), (&["--", "./no-such-command"], 2)] {
        let (ended, said) = ended(check(network.host(), &report, words, &[]))?;
        ensure!(ended == Some(code), "{ended:?} {said}");
        ensure!(fs::read_to_string(&report)? == EARLIER, "{words:?}");
    }
    // The command sees the earlier one.
    let script = format!("test \"$(cat {})\" = '{{\"good\":1}}'", report.display());
    let (code, said) = ended(check(network.host(), &report, &["--", "sh", "-c", &script], &[]))?;
    ensure!(code == Some(0), "{code:?} {said}");
    let metadata = fs::metadata(&report)?;
    ensure!(is_report(&report)? && metadata.ino() != earlier && metadata.mode() & 0o777 == 0o640);
    ensure!(folder.names()? == ["report.json"], "{:?}", folder.names()?);
    Ok(())
}

/// A pipe waits for its reader at the end, not before anything is attached; a signal ends the waiting.
#[test]
fn a_report_to_a_pipe_waits_at_the_end() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    let network = loopback()?;
    let folder = Folder::new()?;
    let pipe = folder.file("pipe");
    rustix::fs::mkfifoat(CWD, &pipe, Mode::from_raw_mode(0o600))?;
    let done = folder.file("done");
    let script = format!("touch {}", done.display());
    let start = || -> Result<Process> {
        let mut command = check(network.host(), &pipe, &["--", "sh", "-c", &script], &[]);
        let process = Process::start(command.stderr(Stdio::null()))?;
        let deadline = Instant::now() + 3 * TIMEOUT;
        while !done.exists() {
            ensure!(Instant::now() < deadline, "the command does not run");
            thread::sleep(Duration::from_millis(10));
        }
        fs::remove_file(&done)?;
        Ok(process)
    };
    let mut process = start()?;
    let mut content = String::new();
    File::open(&pipe)?.read_to_string(&mut content)?;
    ensure!(process.wait(TIMEOUT)?.code() == Some(0));
    ensure!(serde_json::from_str::<Value>(&content)?["type"] == "report", "{content}");

    let mut process = start()?;
    thread::sleep(Duration::from_millis(300));
    process.signal(libc::SIGTERM)?;
    let status = process.wait(Duration::from_secs(2)).context("it waits for a reader")?;
    ensure!(!status.success(), "{status}");
    Ok(())
}

/// A shell's `>(…)` and `/dev/stdout` are descriptors that the caller has opened.
#[test]
fn a_report_goes_to_an_open_descriptor() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    let network = loopback()?;
    let mut command = check(network.host(), Path::new("/dev/stdout"), &["--", "true"], SUDO);
    let output = process::output(command.stdout(Stdio::piped()))?;
    let report: Value = serde_json::from_slice(&output.stdout)?;
    ensure!(output.status.success() && report["type"] == "report", "{report}");
    Ok(())
}
