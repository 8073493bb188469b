//! The kernel is the judge: random conversations with a real listening socket, and handshake's verdict
//! against what the socket did.
//!
//! ```text
//! script (a seed) ─▶ client: segments by waves ─▶ host: a listening socket, its kernel's truth ─┐
//!                            │                                                                  ├─▶ judge
//!                            └─▶ handshake watch; handshake replay of the same frames ──────────┘
//! ```
//!
//! A conversation is judged by its completions: handshake saw as many as the kernel established. Where an
//! observer cannot know better, the difference has a class, and the conversation contains the segment that
//! explains it. Any other difference is an error.

mod client;
mod host;
mod judge;
mod script;
mod setting;

use std::collections::HashMap;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use self::client::{Client, Conversation};
use self::host::{Host, Truth};
use self::judge::{Case, Finding, judge};
use self::script::Script;
use self::setting::Setting;
use crate::agent::{Agent, run_to_end};
use crate::tap::{Dump, DumpFile};
use crate::topology::{DEVICE, Pair};
use crate::{Family, Namespace};

pub use self::judge::{Class, ClassCounts, Direction};

/// Conversations under one run of handshake.
const BOUT: u64 = 12_000;
/// The port of the first setting; the others' follow.
const FIRST_PORT: u16 = 7000;
/// Limit for a replay: a debug build on a busy machine.
const REPLAY: Duration = Duration::from_secs(120);
/// Differences that a report shows in full.
const SHOWN: usize = 20;

/// Which conversations are played.
#[derive(Clone, Copy, Debug)]
pub struct Duel {
    /// The seed of their scripts.
    pub seed: u64,
    /// Their number.
    pub conversations: u64,
    /// This one alone.
    pub only: Option<u64>,
    /// Show the conversations of this class.
    pub shown: Option<Class>,
    /// Run handshake with `--verify-checksums`: a wrong checksum then explains nothing.
    pub verify_checksums: bool,
}

/// The result of a duel.
#[derive(Clone, Debug, Default)]
pub struct DuelOutcome {
    /// Conversations compared, live and by replay.
    pub compared: u64,
    /// Those that the kernel established, once or more.
    pub established: u64,
    /// Those that live and replay judge differently.
    pub apart: u64,
    /// Explained differences of the live account.
    pub live: ClassCounts,
    /// Explained differences of the replay.
    pub replay: ClassCounts,
    /// Differences that nothing explains, each with its conversation.
    pub errors: Vec<String>,
    /// The conversations of [`Duel::only`] and [`Duel::shown`].
    pub told: Vec<String>,
}

impl fmt::Display for DuelOutcome {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for error in self.errors.iter().take(SHOWN) {
            writeln!(formatter, "{error}\n")?;
        }
        if self.errors.len() > SHOWN {
            writeln!(formatter, "… and {} more\n", self.errors.len() - SHOWN)?;
        }
        for told in self.told.iter().take(SHOWN) {
            writeln!(formatter, "{told}\n")?;
        }
        writeln!(formatter, "conversations     {:>8}", self.compared)?;
        writeln!(formatter, "  established     {:>8}", self.established)?;
        writeln!(formatter, "live ≠ replay     {:>8}", self.apart)?;
        write!(formatter, "explained, live\n{}explained, replay\n{}", self.live, self.replay)?;
        write!(formatter, "unexplained       {:>8}", self.errors.len())
    }
}

/// Plays the conversations; `binary` is handshake.
///
/// # Errors
/// The network cannot be made, the server is too slow, or handshake fails.
pub fn play(duel: &Duel, binary: &Path, mut progress: impl FnMut(u64)) -> Result<DuelOutcome> {
    let mut outcome = DuelOutcome::default();
    if let Some(only) = duel.only {
        bout(duel, binary, &[only], &mut outcome)?;
        return Ok(outcome);
    }
    let mut next = 0;
    while next < duel.conversations {
        let end = duel.conversations.min(next + BOUT);
        bout(duel, binary, &(next..end).collect::<Vec<u64>>(), &mut outcome)?;
        progress(outcome.compared);
        next = end;
    }
    ensure!(outcome.compared == duel.conversations, "{} conversations were compared", outcome.compared);
    Ok(outcome)
}

/// A conversation that has been played.
struct Played {
    conversation: Conversation,
    setting: Setting,
    truth: Truth,
}

/// Plays these conversations under one run of handshake, by rounds of one setting each.
fn bout(duel: &Duel, binary: &Path, streams: &[u64], outcome: &mut DuelOutcome) -> Result<()> {
    let pair = Pair::new()?;
    pair.server.ip(&["route add 10.99.0.0/16 via 192.0.2.1"])?;
    let dump = Recording::start(&pair.server)?;
    let verify: &[&str] = if duel.verify_checksums { &["--verify-checksums"] } else { &[] };
    let arguments = [&["--events", "all", "-i", DEVICE, "--interval", "60s"], verify].concat();
    let agent = Agent::start(&pair.server, binary, &arguments)?;
    // The frames in the capture are those that were sent, and have their checksums.
    pair.server.offload(DEVICE, "gro", false)?;
    pair.server.offload(DEVICE, "tx", false)?;
    let mut played = Vec::new();
    for (place, setting) in Setting::ALL.into_iter().enumerate() {
        let streams: Vec<u64> =
            streams.iter().copied().filter(|stream| Setting::place_of(*stream) == place).collect();
        if !streams.is_empty() {
            let port = FIRST_PORT + u16::try_from(place)?;
            played.extend(round(duel.seed, &pair, setting, port, &streams)?);
        }
    }
    let live = agent.stop()?;
    let file = dump.stop()?;
    let path = file.path().to_str().context("a path in UTF-8")?;
    let replay = |more: &[&str]| {
        let arguments = [&["replay", path, "-o", "jsonl"], verify, more].concat();
        run_to_end(&pair.client, binary, &arguments, REPLAY)
    };
    let replayed = replay(&["--events", "all"])?;
    let reports = [live.report()?, replayed.report()?];
    for report in &reports {
        check_whole(report)?;
    }
    let accounts = [by_client(live.flows()?), by_client(replayed.flows()?)];
    let told = compare(duel, &played, &accounts, outcome);
    if told.is_empty() {
        return Ok(());
    }
    let flows = by_client(replay(&["--flows"])?.flows()?);
    let [live, replayed] = &accounts;
    for (each, findings) in told {
        let accounts = [("live", live), ("replay", replayed), ("replay's record", &flows)];
        let text = tell(duel.seed, each, findings, &accounts);
        if findings.iter().any(|finding| matches!(finding, Finding::Unexplained(_))) {
            outcome.errors.push(text);
        } else {
            outcome.told.push(text);
        }
    }
    Ok(())
}

/// Judges each conversation by the accounts, live and replayed, and returns those to show.
fn compare<'a>(
    duel: &Duel,
    played: &'a [Played],
    [live, replayed]: &[HashMap<SocketAddrV4, Vec<Value>>; 2],
    outcome: &mut DuelOutcome,
) -> Vec<(&'a Played, [Finding; 2])> {
    let mut told = Vec::new();
    for each in played {
        let client = each.conversation.script.client;
        let (seen, again) = (completions(live.get(&client)), completions(replayed.get(&client)));
        outcome.compared += 1;
        outcome.established += u64::from(each.truth.established > 0);
        outcome.apart += u64::from(seen != again);
        let case = Case {
            conversation: &each.conversation,
            truth: &each.truth,
            setting: each.setting,
            verified: duel.verify_checksums,
        };
        let findings = [judge(&case, seen), judge(&case, again)];
        for (finding, counts) in findings.into_iter().zip([&mut outcome.live, &mut outcome.replay]) {
            if let Finding::Explained(direction, class) = finding {
                counts.add(direction, class);
            }
        }
        let is_shown = findings.iter().any(|finding| match finding {
            Finding::Agreed => false,
            Finding::Explained(_, class) => Some(*class) == duel.shown,
            Finding::Unexplained(_) => true,
        });
        if is_shown || duel.only.is_some() {
            told.push((each, findings));
        }
    }
    told
}

/// Plays the conversations of one setting.
fn round(seed: u64, pair: &Pair, setting: Setting, port: u16, streams: &[u64]) -> Result<Vec<Played>> {
    let path = pair.path(Family::V4);
    let address = path.server_at(port);
    let script = |stream: u64| {
        // Distinct within a bout.
        let place = u16::try_from(256 + stream % 60_000)?;
        Ok(Conversation::new(Script::draw(seed, stream, place)))
    };
    let mut conversations = streams.iter().map(|stream| script(*stream)).collect::<Result<Vec<_>>>()?;
    let mut client = Client::new(&path)?;
    let host = Host::new(&pair.server, setting, address)?;
    let truths = thread::scope(|scope| {
        let accepting = scope.spawn(|| host.accept());
        let played = client.play(&mut conversations, address, || host.settle(), || host.look());
        let truths = played.and_then(|()| host.truth());
        host.stop();
        accepting.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        truths
    })
    .with_context(|| format!("in a round with {setting}"))?;
    let played = conversations.into_iter().map(|conversation| {
        let truth = truths.get(&conversation.script.client).cloned().unwrap_or_default();
        Played { conversation, setting, truth }
    });
    Ok(played.collect())
}

/// Fails if handshake says that it did not see or tell everything.
fn check_whole(report: &Value) -> Result<()> {
    for field in ["/tcp/untracked", "/tcp/evicted", "/loss/lost_events", "/loss/contended"] {
        let count = report.pointer(field).and_then(Value::as_u64);
        ensure!(count.unwrap_or(0) == 0, "{field} is {count:?}: nothing can be compared");
    }
    Ok(())
}

/// The flow objects of each client.
fn by_client(flows: Vec<Value>) -> HashMap<SocketAddrV4, Vec<Value>> {
    let mut by_client: HashMap<SocketAddrV4, Vec<Value>> = HashMap::new();
    for flow in flows.into_iter().filter(|flow| flow["event"] != "half_open") {
        for end in ["initiator", "responder"] {
            let address = flow[end]["address"].as_str().and_then(|address| address.parse::<Ipv4Addr>().ok());
            let port = flow[end]["port"].as_u64().and_then(|port| u16::try_from(port).ok());
            if let (Some(address), Some(port)) = (address, port)
                && address.octets().starts_with(&script::CLIENTS)
            {
                by_client.entry(SocketAddrV4::new(address, port)).or_default().push(flow);
                break;
            }
        }
    }
    by_client
}

/// The number of completions that events tell. A completion after an abort may be taken back.
fn completions(events: Option<&Vec<Value>>) -> i64 {
    let mut count = 0;
    let mut last = "";
    for event in events.into_iter().flatten() {
        let verdict = event["verdict"].as_str().unwrap_or_default();
        let is_revised =
            event["flags"].as_array().is_some_and(|flags| flags.iter().any(|flag| flag == "revised"));
        match verdict {
            "completed" => count += 1,
            "initiator_aborted" | "responder_aborted" if is_revised && last == "completed" => count -= 1,
            _ => {}
        }
        last = verdict;
    }
    count
}

/// A conversation with everything that is known of it.
fn tell(
    seed: u64,
    each: &Played,
    findings: [Finding; 2],
    accounts: &[(&str, &HashMap<SocketAddrV4, Vec<Value>>)],
) -> String {
    let Conversation { script, sent, answers } = &each.conversation;
    let [live, replay] = findings;
    let mut lines = vec![
        format!(
            "--seed {seed} --stream {}: {}: live {live:?}, replay {replay:?}",
            script.stream, each.setting
        ),
        script.to_string(),
        format!("    kernel: {:?}", each.truth),
    ];
    lines.extend(answers.iter().map(|answer| {
        let of = script.isns.iter().position(|j| answer.ack.wrapping_sub(*j) <= 1401);
        let of = of.map_or(String::from("?"), |of| format!("J{}", "'".repeat(of)));
        format!("    SYN+ACK of {of}: {answer:?}")
    }));
    lines.extend(sent.iter().map(|sent| format!("    sent {} seq {} ack {}", sent.shot, sent.seq, sent.ack)));
    for (name, account) in accounts {
        for flow in account.get(&script.client).into_iter().flatten() {
            lines.push(format!("    {name}: {flow}"));
        }
    }
    lines.join("\n")
}

/// tcpdump into a file of this process.
struct Recording(Dump);

impl Recording {
    fn start(namespace: &Namespace) -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let file: PathBuf =
            std::env::temp_dir().join(format!("hs-duel-{}-{number}.pcap", std::process::id()));
        Ok(Self(Dump::start(namespace, DEVICE, &file)?))
    }

    fn stop(self) -> Result<DumpFile> {
        self.0.stop()
    }
}
