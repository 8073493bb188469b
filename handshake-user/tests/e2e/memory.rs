//! The memory of the maps matches the documentation and `doctor`, according to the kernel.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result, ensure};
use handshake_lab::agent::{Agent, run_to_end};
use handshake_lab::{Loopback, Namespace, skip_unless_privileged};

use crate::HANDSHAKE;
use crate::network::TIMEOUT;

/// Memory per flow according to `docs/performance.md`, "Memory".
const BYTES_A_FLOW: u64 = 160;
const MEBIBYTE: u64 = 1 << 20;
/// The default of `--max-flows`.
const FLOWS: u64 = 262_144;
/// The pages that the kernel adds to a mapped array, bytes.
const TWO_PAGES: u64 = 8192;

#[test]
fn the_tables_take_the_documented_bytes_per_flow() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    let lo = Loopback::new()?;
    for (words, flows) in [(&[][..], FLOWS), (&["--max-flows", "32768"], 32_768), (&["--events"], FLOWS)] {
        let maps = locked(&lo.host, words)?;
        // The tables are the two largest mapped arrays.
        let mut arrays: Vec<u64> = maps.iter().filter(|map| map.kind == ARRAY).map(|map| map.bytes).collect();
        arrays.sort_unstable();
        let tables: u64 = arrays.iter().rev().take(2).sum();
        let said = flows * BYTES_A_FLOW;
        ensure!(tables >= said && tables <= said + 2 * TWO_PAGES, "{words:?}: {tables} for {flows} flows");
        let rings: u64 = maps.iter().filter(|map| map.kind == RING).map(|map| map.bytes).sum();
        let ring = if words == ["--events"] { 4 * MEBIBYTE } else { 0 };
        ensure!(rings >= ring && rings < ring + MEBIBYTE / 8, "{words:?}: rings of {rings}");
        let all: u64 = maps.iter().map(|map| map.bytes).sum();
        ensure!(
            all - tables - rings < MEBIBYTE + MEBIBYTE / 4,
            "{words:?}: {all} in all, {tables} of it tables"
        );
        if words.is_empty() {
            let outcome = run_to_end(&lo.host, HANDSHAKE, &["doctor", "-i", "lo"], TIMEOUT)?;
            // The kernel's own pages for each map are in no sum.
            let said =
                [all / MEBIBYTE, all.div_ceil(MEBIBYTE)].map(|mebibytes| format!("take {mebibytes} MiB"));
            let found = outcome.stdout.lines().find(|line| said.iter().any(|said| line.contains(said)));
            let found = found.with_context(|| format!("{all} locked, no {said:?} in {}", outcome.stdout))?;
            ensure!(found.contains(&format!("{BYTES_A_FLOW} bytes per flow")), "{found}");
        }
    }
    Ok(())
}

const ARRAY: u64 = 2;
const RING: u64 = 27;

/// A map, as the kernel describes its descriptor.
#[derive(Clone, Copy, Debug)]
struct Map {
    /// The number in `enum bpf_map_type`.
    kind: u64,
    bytes: u64,
}

/// Starts a `watch`, reads its maps, and ends it.
fn locked(host: &Namespace, words: &[&str]) -> Result<Vec<Map>> {
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
        if let (Some(id), Some(kind), Some(bytes)) = (field("map_id"), field("map_type"), field("memlock")) {
            maps.insert(id, Map { kind, bytes });
        }
    }
    agent.stop()?;
    Ok(maps.into_values().collect())
}
