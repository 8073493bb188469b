//! The memory of the maps matches the documentation and `doctor`, according to the kernel.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use handshake_lab::agent::{Agent, run_to_end};
use handshake_lab::control_group::ControlGroup;
use handshake_lab::tcp::{self, Listener};
use handshake_lab::{Family, Loopback, Namespace, skip_unless_found, skip_unless_privileged};

use crate::HANDSHAKE;
use crate::network::TIMEOUT;

/// Memory per flow according to `docs/performance.md`, "Memory".
const BYTES_A_FLOW: u64 = 196;
const MEBIBYTE: u64 = 1 << 20;
/// The default of `--max-flows`.
const FLOWS: u64 = 262_144;
/// What a run has given back when it is looked at: the verifier's, bytes.
const GIVEN_BACK: u64 = 28 * MEBIBYTE;
/// The pages that the kernel adds to a mapped array, bytes.
const TWO_PAGES: u64 = 8192;

#[test]
fn the_tables_take_the_documented_bytes_per_flow() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    let lo = Loopback::new()?;
    for (words, flows) in
        [(&[][..], FLOWS), (&["--max-flows", "131072"], 131_072), (&["--events", "all"], FLOWS)]
    {
        let (maps, process) = locked(&lo.host, words)?;
        let of_tables = |map: &&Map| map.kind == ARRAY && OF_TABLES.contains(&map.value);
        let tables: u64 = maps.iter().filter(of_tables).map(|map| map.bytes).sum();
        let said = flows * BYTES_A_FLOW;
        ensure!(tables >= said && tables <= said + 4 * TWO_PAGES, "{words:?}: {tables} for {flows} flows");
        let rings: u64 = maps.iter().filter(|map| map.kind == RING).map(|map| map.bytes).sum();
        let ring = if words == ["--events", "all"] { 4 * MEBIBYTE } else { 0 };
        ensure!(rings >= ring && rings < ring + MEBIBYTE / 8, "{words:?}: rings of {rings}");
        let all: u64 = maps.iter().map(|map| map.bytes).sum();
        ensure!(
            all - tables - rings < 3 * MEBIBYTE + MEBIBYTE / 2,
            "{words:?}: {all} in all, {tables} of it tables"
        );
        let peak = announced(&lo.host, words)?;
        // What the kernel adds to programs and maps is in neither figure.
        let most = 3 * MEBIBYTE;
        let said = format!("{words:?}: {all} locked and {process} of the process, {peak} announced");
        ensure!(all + process <= peak, "{said}");
        ensure!(peak - all - process <= GIVEN_BACK + most + ended(words), "{said}");
    }
    Ok(())
}

/// Where the memory of a run is not free, it does not begin, and names what fits; that runs in the same room.
#[test]
fn a_run_that_does_not_fit_its_control_group_names_one_that_does() -> Result<()> {
    const ROOM: u64 = 71 * MEBIBYTE;
    if skip_unless_privileged() {
        return Ok(());
    }
    let Some(group) = limited(ROOM)? else { return Ok(()) };
    let lo = Loopback::new()?;
    let watch = |words: &[&str]| {
        let mut command = group.command(&lo.host, HANDSHAKE);
        command.args(["watch", "-i", "lo", "-o", "jsonl"]).args(words);
        command
    };
    let error = Agent::attach(watch(&[]), 1).map(drop).err().context("it runs without room")?.to_string();
    ensure!(
        error.contains("exit status: 4") && error.contains("MiB are free in the control group"),
        "{error}"
    );
    let (_, flows) = error.split_once("--max-flows ").context("no flows that fit")?;
    let flows = flows.split(' ').next().context("a number")?;
    ensure!(flows == "131072", "{error}");

    let mut agent = Agent::attach(watch(&["--max-flows", flows, "--interval", "50ms"]), 1)?;
    let path = lo.path(Family::V4);
    let listener = Listener::new(&path, 0, 16)?;
    let _open = tcp::connect_accept(&path, &listener, 5)?;
    let report = agent.await_report(TIMEOUT, |report| report["tcp"]["completed"] == 5)?;
    ensure!(report["exact"] == true, "{report}");
    ensure!(agent.stop()?.status.success());
    Ok(())
}

/// A control group with a limit of memory; `None`, and the test is skipped, where this machine lets none be made.
fn limited(limit: u64) -> Result<Option<ControlGroup>> {
    let places = [("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")];
    for (place, file) in places {
        let group = ControlGroup::within(Path::new(place), &format!("hs-{}", std::process::id()));
        if let Some(group) = group.filter(|group| group.folder().join(file).exists()) {
            fs::write(group.folder().join(file), limit.to_string())?;
            return Ok(Some(group));
        }
    }
    let _skipped = skip_unless_found(false, "a control group that limits memory");
    Ok(None)
}

/// What doctor says that a run takes at its peak, bytes.
fn announced(host: &Namespace, words: &[&str]) -> Result<u64> {
    let outcome = run_to_end(host, HANDSHAKE, &["doctor", "-i", "lo"], TIMEOUT)?;
    let line = outcome.stdout.lines().find_map(|line| line.strip_prefix("ok    a run takes "));
    let line = line.with_context(|| format!("no peak in {}", outcome.stdout))?;
    ensure!(line.contains(&format!("{BYTES_A_FLOW} bytes per flow")), "{line}");
    let peak = line.split(' ').next().context("a number")?.parse::<u64>()? * MEBIBYTE;
    let flows =
        words.iter().position(|word| *word == "--max-flows").and_then(|at| words[at + 1].parse().ok());
    Ok(peak - (FLOWS - flows.unwrap_or(FLOWS)) * BYTES_A_FLOW + ended(words))
}

/// What `--events` adds: the ring, what waits to be written, and what is announced.
fn ended(words: &[&str]) -> u64 {
    if words.contains(&"--events") { 12 * MEBIBYTE } else { 0 }
}

const ARRAY: u64 = 2;
const RING: u64 = 27;
/// The values of the tables and of their owners: a set of either family, and the owners of a slot.
const OF_TABLES: [u64; 3] = [256, 512, 16];

/// A map, as the kernel describes its descriptor.
#[derive(Clone, Copy, Debug)]
struct Map {
    /// The number in `enum bpf_map_type`.
    kind: u64,
    /// The bytes of a value.
    value: u64,
    bytes: u64,
}

/// Starts a `watch`, reads its maps, and the bytes of its own memory at most; ends it.
fn locked(host: &Namespace, words: &[&str]) -> Result<(Vec<Map>, u64)> {
    let words: Vec<&str> = ["-i", "lo"].iter().chain(words).copied().collect();
    let agent = Agent::start(host, HANDSHAKE, &words)?;
    let mut maps = BTreeMap::new();
    let folder = format!("/proc/{}/fdinfo", agent.id());
    for entry in fs::read_dir(&folder).with_context(|| format!("list {folder}"))? {
        let text = fs::read_to_string(entry?.path()).unwrap_or_default();
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.and_then(|value| value.trim().parse::<u64>().ok())
        };
        let fields = ["map_id", "map_type", "value_size", "memlock"].map(field);
        if let [Some(id), Some(kind), Some(value), Some(bytes)] = fields {
            maps.insert(id, Map { kind, value, bytes });
        }
    }
    let status = fs::read_to_string(format!("/proc/{}/status", agent.id()))?;
    let kibibytes = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_suffix("kB"));
        line.and_then(|number| number.trim().parse::<u64>().ok()).with_context(|| format!("no {name}"))
    };
    // The maps are mapped too, as files.
    let process = (kibibytes("VmHWM:")? - kibibytes("RssFile:")?) << 10;
    agent.stop()?;
    Ok((maps.into_values().collect(), process))
}
