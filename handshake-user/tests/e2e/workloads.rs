//! Expectations by workload: a command in a control group of its own, beside one that stays where it is.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use handshake_lab::{Family, skip_unless_privileged};

use crate::check::{Check, ensure_code, expected};
use crate::network::segment;

/// A control group that looks like a unit's, in the tree of cgroup v2.
struct Unit {
    name: String,
    folder: PathBuf,
}

impl Unit {
    fn new() -> Result<Self> {
        let mounts = fs::read_to_string("/proc/mounts")?;
        let mount = mounts.lines().find_map(|line| {
            let mut words = line.split(' ').skip(1);
            let folder = words.next()?;
            (words.next() == Some("cgroup2")).then_some(folder)
        });
        let name = format!("hs-e2e-{}.service", std::process::id());
        let folder = PathBuf::from(mount.context("no tree of cgroup v2 is mounted")?).join(&name);
        fs::create_dir(&folder)?;
        Ok(Self { name, folder })
    }
}

impl Drop for Unit {
    fn drop(&mut self) {
        // What is left in it after a failure keeps it.
        let _ = fs::remove_dir(&self.folder);
    }
}

/// Of eight attempts that are refused five are the unit's. What was not seen has counts of 0, and no share.
#[test]
fn the_attempts_of_a_unit_are_counted() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    let (network, unit) = (segment()?, Unit::new()?);
    let to = network.path(Family::V4).source;
    let try_to = |times: usize| {
        format!("for i in $(seq {times}); do bash -c 'exec 3<>/dev/tcp/{to}/9' 2>/dev/null; done")
    };
    let script = format!(
        "(echo 0 > {}/cgroup.procs; {}); {}; echo ready",
        unit.folder.display(),
        try_to(5),
        try_to(3)
    );
    let name = &unit.name;
    let met = [
        "attempts == 8".to_owned(),
        format!("attempts{{unit={name}}} == 5"),
        format!("refused{{unit={name},side=initiator}} == 5"),
        format!("attempts{{unit={name},side=responder}} == 0"),
        "attempts{unit=hs-never.service} == 0".to_owned(),
    ];
    let met: Vec<&str> = met.iter().map(String::as_str).collect();
    let said: Vec<String> = met.iter().map(|expectation| format!("met {expectation}")).collect();
    let said: Vec<&str> = said.iter().map(String::as_str).collect();
    ensure_code(&Check::start(&network, &expected(&met), &script)?.wait()?, 0, &said)?;
    let never = "refused{unit=hs-never.service} / attempts{unit=hs-never.service} == 0";
    let outcome = Check::start(&network, &expected(&[never]), &script)?.wait()?;
    let said = "attempts{unit=hs-never.service} is 0: a gate cannot pass when nothing ran";
    ensure_code(&outcome, 3, &["INCONCLUSIVE", said])
}
