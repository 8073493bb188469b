//! `--names`: a name server on the wire answers, says nothing, or lies; and without the option none is asked.

use std::fs;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use handshake_lab::agent::{Agent, AgentOutcome};
use handshake_lab::tap::Dump;
use handshake_lab::tcp::{self, Listener};
use handshake_lab::topology::DEVICE;
use handshake_lab::{Family, Namespace, Path, skip_unless_privileged, skip_without_tool};

use crate::HANDSHAKE;
use crate::network::{Network, TIMEOUT, scratch, segment};
use crate::privilege::{NOBODY, ensure_confined};

/// The port of the service, which /etc/services has by the name `http-alt`, and the one of name servers.
const SERVICE: u16 = 8080;
const DNS: u16 = 53;
/// How long a run watches.
const WATCHED: Duration = Duration::from_secs(4);

/// A name server in the client's namespace, which is asked by the server's.
struct NameServer {
    asked: Arc<AtomicUsize>,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl NameServer {
    /// It gives the name `labels` to every address, or does not answer.
    fn start(path: &Path<'_>, labels: Option<&'static [&'static [u8]]>) -> Result<Self> {
        let at = SocketAddr::new(path.source, DNS);
        let socket = path.client.enter(|| UdpSocket::bind(at).context("bind"))?;
        socket.set_read_timeout(Some(Duration::from_millis(50)))?;
        let (asked, is_over) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (count, over) = (Arc::clone(&asked), Arc::clone(&is_over));
        let thread = thread::spawn(move || {
            let mut question = [0; 512];
            while !over.load(Ordering::Relaxed) {
                let Ok((length, from)) = socket.recv_from(&mut question) else { continue };
                count.fetch_add(1, Ordering::Relaxed);
                if let Some(labels) = labels {
                    // The client may have ended.
                    let _ = socket.send_to(&answer(&question[..length], labels), from);
                }
            }
        });
        Ok(Self { asked, is_over, thread: Some(thread) })
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("no panic");
        }
    }
}

/// The question as an answer (RFC 1035, 4.1): one PTR for the name asked, for a minute.
fn answer(question: &[u8], labels: &[&[u8]]) -> Vec<u8> {
    let mut name: Vec<u8> = Vec::new();
    for label in labels {
        name.push(u8::try_from(label.len()).expect("a short label"));
        name.extend(*label);
    }
    name.push(0);
    let mut answer = question.to_vec();
    answer[2..4].copy_from_slice(&[0x81, 0x80]);
    answer[6..8].copy_from_slice(&[0, 1]);
    answer.extend([0xc0, 12, 0, 12, 0, 1, 0, 0, 0, 60, 0]);
    answer.push(u8::try_from(name.len()).expect("a short name"));
    answer.extend(name);
    answer
}

/// Files that stand in the place of this machine's for one command.
struct Files(PathBuf);

impl Files {
    fn new(server: IpAddr, hosts: &str) -> Result<Self> {
        let folder = scratch("names");
        fs::create_dir(&folder)?;
        fs::write(folder.join("resolv.conf"), format!("nameserver {server}\n"))?;
        fs::write(folder.join("hosts"), hosts)?;
        Ok(Self(folder))
    }

    /// The command under test, which sees them.
    fn command(&self, host: &Namespace) -> Command {
        let mut command = host.command("unshare");
        let folder = self.0.display();
        command.args(["--mount", "sh", "-c"]).arg(format!(
            "mount --bind {folder}/resolv.conf /etc/resolv.conf && mount --bind {folder}/hosts /etc/hosts && \
             exec \"$@\""
        ));
        command.arg("sh").arg(HANDSHAKE);
        command
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The time that a run may take beside its own on a busy machine.
const SLACK: Duration = Duration::from_secs(3);

/// Watches for [`WATCHED`], while a connection is made each half of a second.
fn watched(network: &Network, family: Family, files: &Files, words: &[&str]) -> Result<AgentOutcome> {
    let path = network.path(family);
    let mut command = files.command(network.host());
    command.args(["watch", "-i", DEVICE, "--max-flows", "1000", "--interval", "500ms", "--for", "4s"]);
    command.args(["--port", "8080"]).args(words);
    let agent = Agent::attach(command, 1)?;
    // The thread that asks as well.
    ensure_confined(agent.id(), NOBODY, 0, true)?;
    let began = Instant::now();
    let listener = Listener::new(&path, SERVICE, 16)?;
    while began.elapsed() < Duration::from_millis(2_500) {
        tcp::connect_accept(&path, &listener, 1)?.close()?;
        thread::sleep(Duration::from_millis(500));
    }
    let outcome = agent.wait(TIMEOUT)?;
    let took = began.elapsed();
    ensure!(took < WATCHED + SLACK, "{took:?}");
    Ok(outcome)
}

#[test]
fn ends_have_the_names_that_files_and_servers_give() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    for family in [Family::V4, Family::V6] {
        let network = segment()?;
        let path = network.path(family);
        let server = NameServer::start(&path, Some(&[b"client", b"lab", b"example"]))?;
        let files = Files::new(path.source, &format!("{} the-server\n", path.destination))?;
        let outcome = watched(&network, family, &files, &["--names", "--events", "all", "--flows"])?;
        let shown = &outcome.stdout;
        ensure!(shown.contains("client.lab.example:"), "{shown}\n{}", outcome.stderr);
        ensure!(shown.contains("→ the-server:http-alt"), "{shown}");
        // The first event comes before the answer.
        let first = shown.lines().find(|line| line.contains('→')).context("an event")?;
        ensure!(first.contains(&path.source.to_string()), "{first}");
        // One address is asked for, once.
        ensure!(server.asked() == 1, "{}", server.asked());
        ensure!(!outcome.stderr.contains("privileges"), "{}", outcome.stderr);
    }
    Ok(())
}

/// A server that is silent costs the names, and nothing else: each report comes in its time.
#[test]
fn a_server_that_never_answers_delays_no_report() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    let network = segment()?;
    let path = network.path(Family::V4);
    let server = NameServer::start(&path, None)?;
    let files = Files::new(path.source, "")?;
    let outcome = watched(&network, Family::V4, &files, &["--names"])?;
    let reports = outcome.stdout.lines().filter(|line| line.starts_with("handshake · ")).count();
    // Eight intervals of half a second, and the closing report.
    ensure!((8..=9).contains(&reports), "{reports}\n{}", outcome.stdout);
    ensure!(outcome.stdout.contains(&format!("{}:http-alt", path.destination)), "{}", outcome.stdout);
    // The server's address and the client's: that of the services alone is drawn.
    ensure!((1..=2).contains(&server.asked()), "{}", server.asked());
    Ok(())
}

/// A capture is read before any server has answered. Its report waits for the names, and for a second at most.
#[test]
fn the_report_of_a_capture_waits_for_names_but_not_for_long() -> Result<()> {
    if skip_unless_privileged() || skip_without_tool("tcpdump") {
        return Ok(());
    }
    let network = segment()?;
    let path = network.path(Family::V4);
    let dump = Dump::start(network.host(), DEVICE, &scratch("names.pcap"))?;
    let listener = Listener::new(&path, SERVICE, 16)?;
    let connections = tcp::connect_accept(&path, &listener, 1)?;
    let written = dump.stop()?;
    drop(connections);
    let files = Files::new(path.source, &format!("{} the-server\n", path.destination))?;
    const LABELS: &[&[u8]] = &[b"client", b"lab"];
    let replay = |words: &[&str]| {
        let mut command = files.command(network.host());
        command.arg("replay").args(words).arg(written.path());
        let began = Instant::now();
        let outcome = Agent::begin(command)?.wait(TIMEOUT)?;
        anyhow::Ok((outcome, began.elapsed()))
    };
    let (_, without) = replay(&["--flows"])?;
    for labels in [Some(LABELS), None] {
        let server = NameServer::start(&path, labels)?;
        let (outcome, took) = replay(&["--names", "--flows"])?;
        let shown = &outcome.stdout;
        ensure!(outcome.status.success() && shown.contains("→ the-server:http-alt"), "{shown}");
        ensure!(shown.contains("client.lab:") == labels.is_some(), "{shown}\n{}", outcome.stderr);
        ensure!(server.asked() == 1, "{}", server.asked());
        ensure!(took < without + SLACK, "{took:?}, and {without:?} without names");
        if labels.is_none() {
            ensure!(
                shown.contains(&format!("{}:", path.source)) && took >= Duration::from_secs(1),
                "{shown}"
            );
        }
    }
    Ok(())
}

/// What a server says is shown, and does not steer the terminal.
#[test]
fn a_name_that_steers_a_terminal_is_escaped() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    let network = segment()?;
    let path = network.path(Family::V4);
    let _server = NameServer::start(&path, Some(&[b"\x1b[2Jevil\n", b"example"]))?;
    let files = Files::new(path.source, "")?;
    let outcome = watched(&network, Family::V4, &files, &["--names", "--events", "all"])?;
    let shown = &outcome.stdout;
    ensure!(shown.contains("evil") && shown.contains(".example:http-alt"), "{shown}");
    ensure!(!shown.contains('\u{1b}') && !shown.lines().any(|line| line.starts_with(".example")), "{shown}");
    Ok(())
}

/// Without the option, and where JSON is written, no server is asked, and ends are numbers.
#[test]
fn without_names_no_packet_is_sent() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    let network = segment()?;
    let path = network.path(Family::V4);
    let server = NameServer::start(&path, Some(&[b"client"]))?;
    let files = Files::new(path.source, &format!("{} the-server\n", path.destination))?;
    for words in [&["--events", "all"][..], &["--names", "-o", "jsonl", "--events", "all"]] {
        let outcome = watched(&network, Family::V4, &files, words)?;
        ensure!(outcome.stdout.contains(&path.destination.to_string()), "{}", outcome.stdout);
        ensure!(!outcome.stdout.contains("the-server"), "{}", outcome.stdout);
        ensure!(!outcome.stdout.contains("http-alt"), "{}", outcome.stdout);
    }
    ensure!(server.asked() == 0, "{}", server.asked());
    Ok(())
}
