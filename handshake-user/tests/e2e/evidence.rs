//! `--evidence`: the packets of handshakes that failed, and of no other, from each seat; tshark and `replay` judge
//! them as the run did.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use handshake_lab::agent::{Agent, AgentOutcome, run_to_end};
use handshake_lab::faults::{Place, drop_by};
use handshake_lab::tcp::{self, Attempts, Listener};
use handshake_lab::topology::DEVICE;
use handshake_lab::{Family, Namespace, Routed, process, skip_unless_privileged, skip_without_tool};
use serde_json::Value;

use crate::HANDSHAKE;
use crate::network::{SWIFT, TIMEOUT, segment};
use crate::report_file::{CALLER, Folder, SUDO};
use crate::rows::Small;
use crate::terminal::{press, show};

/// Limit for loading the programs.
const START: Duration = Duration::from_secs(60);
/// The evidence of one service and verdict.
const EACH: usize = 20;
/// Ports whose SYNs, and whose SYN+ACKs, are dropped on the way.
const SILENT: u16 = 9001;
const ONE_WAY: u16 = 9002;

/// Initiator and responder.
type Ends = (SocketAddr, SocketAddr);

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a path in UTF-8")
}

fn watch(place: Place, routed: &Routed, folder: &Path, words: &[&str]) -> Result<Agent> {
    let mut command = place.host(routed).command(HANDSHAKE);
    command.args(["watch", "-o", "jsonl", "--flows"]).args(SWIFT).args(words).arg("--evidence").arg(folder);
    command.args(place.devices().iter().flat_map(|device| ["-i", device]));
    Agent::attach(command, place.devices().len())
}

/// Traffic of every kind that ends or stays as it is, and what keeps it so.
fn traffic(routed: &Routed, family: Family) -> Result<(Listener, [Attempts; 3])> {
    let path = routed.path(family);
    let listener = Listener::new(&path, 0, 64)?;
    tcp::connect_accept(&path, &listener, 12)?.close()?;
    tcp::refused(&path, 3)?;
    tcp::syn_scan(&path, listener.address(), 4)?;
    let unreachable = SocketAddr::new(routed.unreachable(family), 80);
    let unreachable = Attempts::start(&path, unreachable, 2)?;
    unreachable.wait_unreachable(TIMEOUT)?;
    let silent = Attempts::start(&path, path.server_at(SILENT), 3)?;
    // One service, whose answers get lost.
    let one_way = Listener::new(&path, ONE_WAY, 64)?;
    let one_way = (Attempts::start(&path, one_way.address(), 3)?, one_way);
    Ok((one_way.1, [unreachable, silent, one_way.0]))
}

/// The verdict and the cause of each flow of TCP that failed.
fn failed(outcome: &AgentOutcome) -> Result<BTreeMap<Ends, String>> {
    let flows = outcome.flows()?;
    let flows = flows.iter().filter(|flow| flow["protocol"] == "tcp" && flow["verdict"] != "completed");
    flows.map(|flow| Ok((ends(flow)?, title(flow)))).collect()
}

fn title(flow: &Value) -> String {
    let name = |key: &str| flow[key].as_str().unwrap_or_default().to_owned();
    format!("{} {}", name("verdict"), name("cause")).trim_end().to_owned()
}

fn ends(flow: &Value) -> Result<Ends> {
    let end = |side: &str| -> Result<SocketAddr> {
        let end = &flow[side];
        let port = end["port"].as_u64().and_then(|port| u16::try_from(port).ok()).context("a port")?;
        Ok(SocketAddr::new(end["address"].as_str().context("an address")?.parse()?, port))
    };
    Ok((end("initiator")?, end("responder")?))
}

/// Runs `handshake replay` on a file of evidence.
fn replay(file: &Path) -> Result<AgentOutcome> {
    let words = ["-o", "jsonl", "--flows", "--compat", "--half-open-after", "200ms"];
    let output = process::output(Command::new(HANDSHAKE).arg("replay").arg(file).args(words))?;
    let text = |bytes| String::from_utf8(bytes).context("not UTF-8");
    Ok(AgentOutcome { status: output.status, stdout: text(output.stdout)?, stderr: text(output.stderr)? })
}

/// A packet as tshark reads it.
struct Read {
    ends: Ends,
    flags: u64,
    completeness: u64,
    interface: String,
    direction: u64,
    comment: String,
}

/// The packets of a file, by tshark, which must have nothing to complain of.
fn read(file: &Path) -> Result<Vec<Read>> {
    const FIELDS: [&str; 11] = [
        "ip.src",
        "ipv6.src",
        "tcp.srcport",
        "ip.dst",
        "ipv6.dst",
        "tcp.dstport",
        "tcp.flags",
        "tcp.completeness",
        "frame.interface_name",
        "frame.packet_flags_direction",
        "frame.comment",
    ];
    let mut tshark = Command::new("tshark");
    // Of an ICMP error the quoted packet.
    tshark.args(["-n", "-2", "-T", "fields", "-E", "separator=|", "-E", "occurrence=l", "-r"]).arg(file);
    tshark.args(FIELDS.iter().flat_map(|field| ["-e", field]));
    let output = process::output(&mut tshark)?;
    let said = String::from_utf8_lossy(&output.stderr);
    let said: Vec<&str> = said.lines().filter(|line| !line.starts_with("Running as user")).collect();
    ensure!(output.status.success() && said.is_empty(), "{said:?}");
    let mut broken = Command::new("tshark");
    broken.args(["-n", "-Y", "_ws.malformed || _ws.expert.severity == error", "-r"]).arg(file);
    let broken = process::output(&mut broken)?.stdout;
    ensure!(broken.is_empty(), "{}", String::from_utf8_lossy(&broken));
    String::from_utf8(output.stdout)?.lines().map(packet).collect()
}

fn packet(line: &str) -> Result<Read> {
    let fields: Vec<&str> = line.split('|').collect();
    let number = |at: usize| {
        let text: &str = fields[at];
        text.strip_prefix("0x").map_or_else(|| text.parse(), |hex| u64::from_str_radix(hex, 16))
    };
    let end = |at: usize| -> Result<SocketAddr> {
        let address = if fields[at].is_empty() { fields[at + 1] } else { fields[at] };
        Ok(SocketAddr::new(address.parse()?, fields[at + 2].parse()?))
    };
    let read = || -> Result<Read> {
        Ok(Read {
            ends: (end(0)?, end(3)?),
            flags: number(6).unwrap_or(0),
            completeness: number(7).unwrap_or(0),
            interface: fields[8].to_owned(),
            direction: number(9)?,
            comment: fields[10].to_owned(),
        })
    };
    read().with_context(|| line.to_owned())
}

/// The evidence has the flows that failed, and no packet of another; tshark, `replay`, comments and summary say of
/// each what the run said.
fn judge(place: Place, folder: &Path, outcome: &AgentOutcome) -> Result<BTreeSet<String>> {
    const SYN: u64 = 2;
    const SYN_ACK: u64 = 0x12;
    const ACK_OF_RST: u64 = 4;
    let (expected, file) = (failed(outcome)?, folder.join("evidence.pcapng"));
    let replayed = replay(&file)?;
    ensure!(replayed.status.success() && replayed.stderr.is_empty(), "{}", replayed.stderr);
    let again = failed(&replayed)?;
    ensure!(again == expected, "{place}: {again:#?} instead of {expected:#?}");
    let report = replayed.report()?;
    ensure!(report["tcp"]["completed"] == 0 && report["exact"] == true, "{report}");

    let packets = read(&file)?;
    let completeness = replayed.flows()?;
    for flow in &completeness {
        let (ends, title) = (ends(flow)?, title(flow));
        let is_its = |read: &&Read| read.ends == ends || read.ends == (ends.1, ends.0);
        let its: Vec<&Read> = packets.iter().filter(is_its).collect();
        ensure!(!its.is_empty(), "{place}: {ends:?} has no packet");
        let theirs = its.iter().map(|read| read.completeness).max().unwrap_or(0);
        let ours = flow["completeness"].as_u64().context("with --compat")?;
        // tshark counts the acknowledgement of a RST too.
        ensure!(theirs & !ACK_OF_RST == ours & !ACK_OF_RST, "{place}: {title}: {theirs} {ours}");
        let beginning = format!("handshake: {title}, ");
        for read in its {
            ensure!(read.comment.starts_with(&beginning), "{place}: {title}: {}", read.comment);
        }
    }
    let all: BTreeSet<Ends> = packets.iter().map(|read| read.ends).collect();
    let is_known = |ends: &&Ends| expected.contains_key(ends) || expected.contains_key(&(ends.1, ends.0));
    ensure!(all.iter().all(|ends| is_known(&ends)), "{place}: {all:?}");
    for read in &packets {
        ensure!(place.devices().contains(&read.interface.as_str()), "{}", read.interface);
        let leaves = match place {
            Place::Client => read.flags & SYN_ACK == SYN,
            Place::Server => read.flags & SYN_ACK == SYN_ACK,
            Place::Router => read.direction == 2,
        };
        // An error has the flags of what it quotes.
        let is_quoted = read.comment.contains(", ICMP error, ");
        ensure!(
            is_quoted || read.flags & SYN == 0 || read.direction == 1 + u64::from(leaves),
            "{place}: {}",
            read.comment
        );
    }
    let summary = fs::read_to_string(folder.join("summary.md"))?;
    for ((_, responder), title) in &expected {
        ensure!(summary.contains(&format!("## {responder}: {title}\n")), "{place}: {title}:\n{summary}");
    }
    ensure!(summary.matches("```\ntcp ").count() == expected.len(), "{summary}");
    ensure!(!summary.contains("were lost"), "{summary}");
    Ok(expected.into_values().collect())
}

/// Faults at the client, at the router and at the server, seen from each of them.
fn each_verdict_from_each_seat(family: Family) -> Result<()> {
    if skip_unless_privileged() || skip_without_tool("tshark") || skip_without_tool("nft") {
        return Ok(());
    }
    let (routed, folder) = (Routed::new()?, Folder::new()?);
    drop_by(&routed.server, "input", &format!("tcp dport {SILENT}"))?;
    routed.router.run("nft", &["add table inet t"])?;
    routed.router.run("nft", &["add chain inet t c { type filter hook forward priority 0; }"])?;
    routed.router.run("nft", &[&format!("add rule inet t c tcp sport {ONE_WAY} drop")])?;
    let folder_of = |place: Place| folder.file(&place.to_string());
    let mut agents = Vec::new();
    for place in Place::ALL {
        agents.push((place, watch(place, &routed, &folder_of(place), &["--events", "none"])?));
    }
    let _open = traffic(&routed, family)?;
    // All but the completed ones; at the server those that did not come there are not.
    let wanted = |place| if matches!(place, Place::Server) { 3 + 4 + 3 + 3 } else { 3 + 4 + 2 + 3 + 3 };
    for (place, agent) in &mut agents {
        let failing = |report: &Value| {
            let tcp = &report["tcp"];
            let count = |part: &Value| part.as_u64().unwrap_or(0);
            let ends = ["refused", "initiator_aborted", "unreachable"].map(|name| count(&tcp[name]));
            ends.iter().sum::<u64>() + count(&tcp["half_open"]["now"]) == wanted(*place)
        };
        agent.await_report(TIMEOUT, failing).with_context(|| format!("at the {place}"))?;
    }
    let mut verdicts = BTreeMap::new();
    for (place, agent) in agents {
        let outcome = agent.end_by(libc::SIGINT)?;
        ensure!(outcome.status.success(), "{}", outcome.stderr);
        verdicts.insert(place.to_string(), judge(place, &folder_of(place), &outcome)?);
    }
    let of = |place: Place| verdicts[&place.to_string()].iter().map(String::as_str).collect::<Vec<_>>();
    let [answered, unanswered] = ["half_open no_ack", "half_open no_syn_ack"];
    ensure!(of(Place::Client) == [unanswered, "initiator_aborted", "refused", "unreachable"], "{verdicts:?}");
    let router = [answered, unanswered, "initiator_aborted", "refused", "unreachable"];
    ensure!(of(Place::Router) == router, "{verdicts:?}");
    ensure!(of(Place::Server) == [answered, unanswered, "initiator_aborted", "refused"], "{verdicts:?}");
    Ok(())
}

#[test]
fn each_verdict_from_each_seat_by_ipv4() -> Result<()> {
    each_verdict_from_each_seat(Family::V4)
}

#[test]
fn each_verdict_from_each_seat_by_ipv6() -> Result<()> {
    each_verdict_from_each_seat(Family::V6)
}

/// At most 20 attempts of a service and a verdict, and the rest is counted. One that completes late is taken out.
#[test]
fn what_is_kept_is_bounded_and_completes_no_more() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    let (network, folder) = (segment()?, Folder::new()?);
    let (path, kept) = (network.path(Family::V4), folder.file("evidence"));
    let mut agent = network.watch(&["--evidence", text(&kept)?])?;
    tcp::refused(&path, EACH + 10)?;
    let deaf = Listener::deaf(&path, 0)?;
    let late = Attempts::start(&path, deaf.address(), 3)?;
    let summary = kept.join("summary.md");
    let is_written = |words: &str| fs::read_to_string(&summary).is_ok_and(|summary| summary.contains(words));
    let until = Instant::now() + 2 * TIMEOUT;
    while !is_written("half_open no_syn_ack") && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(100));
    }
    ensure!(is_written("half_open no_syn_ack"), "{:?}", fs::read_to_string(&summary));
    deaf.hear()?;
    late.wait_established(TIMEOUT)?;
    agent.await_report(TIMEOUT, |report| report["tcp"]["completed"] == 3)?;
    let outcome = agent.end_by(libc::SIGINT)?;
    ensure!(outcome.status.success(), "{}", outcome.stderr);
    let flows = replay(&kept.join("evidence.pcapng"))?.flows()?;
    ensure!(flows.len() == EACH && flows.iter().all(|flow| flow["verdict"] == "refused"), "{flows:?}");
    let said = fs::read_to_string(&summary)?;
    ensure!(said.contains("10 more attempts failed, or may have, and are not here."), "{said}");
    ensure!(said.contains("Seat: responder.") && said.contains("verdict   refused: "), "{said}");
    Ok(())
}

/// `handshake check WORDS` beside its command.
fn check(host: &Namespace, folder: &Path, expectation: &str, to: SocketAddr) -> Result<AgentOutcome> {
    let mut command = host.command(HANDSHAKE);
    command
        .args(["check", "-i", "lo", "--max-flows", "1000", "--expect", expectation, "--evidence"])
        .arg(folder);
    let connect = format!("exec 3<>/dev/tcp/{}/{}", to.ip(), to.port());
    command.args(["--ignore-status", "--", "bash", "-c", &connect]).envs(SUDO.iter().copied());
    let output = process::output(command.stdin(Stdio::null()))?;
    let text = |bytes| String::from_utf8(bytes).context("not UTF-8");
    Ok(AgentOutcome { status: output.status, stdout: text(output.stdout)?, stderr: text(output.stderr)? })
}

/// A failed check leaves evidence, and one that holds does not. The files are the caller's, no one else reads them,
/// and none is written through a link.
#[test]
fn a_failed_check_leaves_evidence_of_its_caller() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    let network = crate::network::loopback()?;
    let (path, folder) = (network.path(Family::V4), Folder::of_the_caller()?);
    let kept = folder.file("evidence");
    let closed = tcp::refused(&path, 1)?;
    let held = check(network.host(), &kept, "refused == 1", closed)?;
    ensure!(held.status.success() && fs::read_dir(&kept)?.count() == 0, "{}", held.stderr);
    // A link of a file's name is replaced.
    let (ours, file) = (Folder::new()?, kept.join("evidence.pcapng"));
    let victim = ours.file("victim");
    fs::write(&victim, "precious")?;
    symlink(&victim, &file)?;
    symlink(&victim, kept.join("summary.md.new"))?;
    let failed = check(network.host(), &kept, "refused == 0", closed)?;
    ensure!(failed.status.code() == Some(1), "{failed:?}");
    ensure!(fs::read(&victim)? == b"precious");
    for (path, mode) in [(&kept, 0o40700), (&file, 0o100_600), (&kept.join("summary.md"), 0o100_600)] {
        let metadata = fs::symlink_metadata(path)?;
        ensure!((metadata.uid(), metadata.gid(), metadata.mode()) == (CALLER, CALLER, mode), "{metadata:?}");
    }
    let flows = replay(&file)?.flows()?;
    ensure!(flows.len() == 1 && title(&flows[0]) == "refused" && ends(&flows[0])?.1 == closed, "{flows:?}");
    // A folder of someone else, and a link to one.
    let link = folder.file("link");
    symlink(&kept, &link)?;
    for (path, words) in [(ours.file("evidence"), "(as user 65534)"), (link, "it is a link, or no folder")] {
        let refused = check(network.host(), &path, "refused == 0", closed)?;
        let said = format!("--evidence {}", path.display());
        ensure!(refused.status.code() == Some(2), "{refused:?}");
        ensure!(refused.stderr.contains(&said) && refused.stderr.contains(words), "{}", refused.stderr);
    }
    Ok(())
}

/// A service saves it too, and writes the last of it at its end.
#[test]
fn a_service_saves_what_fails() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    let (network, folder) = (segment()?, Folder::of_the_caller()?);
    let kept = folder.file("evidence");
    let mut command = network.host().command(HANDSHAKE);
    command.args(["serve", "-i", DEVICE, "--metrics-listen", "off", "--evidence"]).arg(&kept).args(SWIFT);
    let agent = Agent::attach(command, 1)?;
    let path = network.path(Family::V4);
    tcp::refused(&path, 3)?;
    let listener = Listener::new(&path, 0, 64)?;
    tcp::connect_accept(&path, &listener, 5)?.close()?;
    let outcome = agent.end_by(libc::SIGTERM)?;
    ensure!(outcome.status.success(), "{}", outcome.stderr);
    let flows = replay(&kept.join("evidence.pcapng"))?.flows()?;
    ensure!(flows.len() == 3 && flows.iter().all(|flow| flow["verdict"] == "refused"), "{flows:?}");
    Ok(())
}

/// In the terminal one attempt is saved that has not failed yet.
#[test]
fn a_key_saves_one_attempt() -> Result<()> {
    if skip_unless_privileged() || skip_without_tool("tmux") {
        return Ok(());
    }
    let (network, folder) = (segment()?, Folder::new()?);
    let (path, kept) = (network.path(Family::V4), folder.file("evidence"));
    let rules = ["--half-open-after", "60s"];
    let terminal = show(network.host(), &[&rules[..], &["--evidence", text(&kept)?]].concat())?;
    let deaf = Listener::deaf(&path, 0)?;
    let open = Attempts::start(&path, deaf.address(), 1)?;
    press(&terminal, "2", "192.0.2.1:")?;
    press(&terminal, "e", "packets go to ")?;
    terminal.key("q")?;
    terminal.await_screen(TIMEOUT, |screen| screen.trim_end().ends_with('$'))?;
    let flows = replay(&kept.join("evidence.pcapng"))?.flows()?;
    ensure!(flows.len() == 1 && ends(&flows[0])?.1 == open.address(), "{flows:?}");
    let terminal = show(network.host(), &rules)?;
    let _more = Attempts::start(&path, deaf.address(), 1)?;
    press(&terminal, "2", "192.0.2.1:")?;
    press(&terminal, "e", "packets are saved with --evidence DIR alone")?;
    terminal.key("q")?;
    Ok(())
}

/// A full disk is said once, and what was written before is there as a whole.
#[test]
fn a_full_disk_leaves_what_was_there() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    let network = segment()?;
    let (path, disk) = (network.path(Family::V4), Small::mount(256)?);
    let (kept, filler) = (disk.0.file("evidence"), disk.0.file("filler"));
    let mut agent = network.watch(&["--evidence", text(&kept)?])?;
    tcp::refused(&path, 3)?;
    let file = kept.join("evidence.pcapng");
    let until = Instant::now() + 2 * TIMEOUT;
    while !file.exists() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(100));
    }
    let before = fs::read(&file)?;
    ensure!(replay(&file)?.flows()?.len() == 3);
    fs::write(&filler, vec![b'x'; 300 << 10]).expect_err("there is less room");
    tcp::refused(&path, 3)?;
    agent.await_lines(&format!("handshake: --evidence {}: No space left on device", kept.display()), 1)?;
    ensure!(fs::read(&file)? == before && fs::read_dir(&kept)?.count() == 2);
    fs::remove_file(&filler)?;
    agent.await_lines(&format!("handshake: --evidence {} is written again", kept.display()), 1)?;
    let outcome = agent.end_by(libc::SIGINT)?;
    ensure!(
        outcome.status.success() && outcome.stderr.matches("No space left").count() == 1,
        "{}",
        outcome.stderr
    );
    ensure!(replay(&file)?.flows()?.len() == 6);
    // Nor is a folder used that is a link.
    let link = disk.0.file("link");
    symlink(&kept, &link)?;
    let words = ["watch", "-i", DEVICE, "--evidence", text(&link)?, "--for", "1s"];
    let refused = run_to_end(network.host(), HANDSHAKE, &words, START)?;
    ensure!(refused.status.code() == Some(2), "{refused:?}");
    ensure!(refused.stderr.contains("it is a link, or no folder"), "{}", refused.stderr);
    Ok(())
}
