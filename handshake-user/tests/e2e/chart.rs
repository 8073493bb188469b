//! The Helm chart of packaging/chart: helm's own judgement, the plain manifest that it renders, the schemas
//! of three versions of Kubernetes, and the memory that it grants.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use handshake_agent::memory::peak;
use handshake_agent::options::Options;
use handshake_lab::{python_or_skip, skip_unless_found};

use crate::error::Scratch;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
const CHART: &str = "packaging/chart";
const MANIFEST: &str = "packaging/kubernetes/handshake.yaml";
/// The oldest that the chart is for, one between, and the newest that there is a schema of.
const VERSIONS: [&str; 3] = ["1.25", "1.30", "1.37"];
/// All that may be switched on, and away from its default.
const EVERYTHING: [&str; 9] = [
    "metrics.podMonitor.enabled=true",
    "interfaces={eth0,veth*}",
    "services={api=10.0.0.0/8:443,ssh=:22}",
    "workloads={web=pod:shop/web-1,kubelet=unit:kubelet.service}",
    "labels={site=fra}",
    "cpu.limit=500m",
    "image.pullSecrets[0].name=registry",
    "podAnnotations.team=network",
    "metrics.address=[$(NODE_IP)]",
];

/// Runs helm as `cargo xtask test --setup` unpacked it; without it, the test skips.
struct Helm(PathBuf);

impl Helm {
    fn or_skip() -> Option<Self> {
        let program = Path::new(ROOT).join("target/python/bin/helm");
        let is_there = program.is_file();
        (!skip_unless_found(is_there, "helm (cargo xtask test --setup)")).then_some(Self(program))
    }

    fn run(&self, words: &[&str]) -> Result<Output> {
        Command::new(&self.0).args(words).current_dir(ROOT).output().context("run helm")
    }

    /// What the chart renders with these values.
    fn render(&self, values: &[&str]) -> Result<String> {
        let sets = values.iter().flat_map(|value| ["--set", value]);
        let words = ["template", "handshake", CHART, "--namespace", "handshake"].into_iter().chain(sets);
        let output = self.run(&words.collect::<Vec<_>>())?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    }
}

#[test]
fn the_plain_manifest_is_what_the_chart_renders() -> Result<()> {
    let Some(helm) = Helm::or_skip() else { return Ok(()) };
    let lint = helm.run(&["lint", "--strict", CHART])?;
    ensure!(lint.status.success(), "{}", String::from_utf8_lossy(&lint.stdout));
    let rendered = helm.render(&[])?;
    let written = fs::read_to_string(Path::new(ROOT).join(MANIFEST))?;
    ensure!(
        rendered == written,
        "target/python/bin/helm template handshake {CHART} --namespace handshake > {MANIFEST}"
    );
    let image = format!("image: localhost/handshake:{}\n", env!("CARGO_PKG_VERSION"));
    ensure!(rendered.matches(&image).count() == 2, "no {image}");
    Ok(())
}

/// A value that is misspelled or out of its range is refused, rather than left out.
#[test]
fn wrong_values_are_refused() -> Result<()> {
    let Some(helm) = Helm::or_skip() else { return Ok(()) };
    for value in [
        "maxFlows=0",
        "maxflows=1000",
        "metrics.address=0.0.0.0",
        "metrics.port=0",
        "interfaces={eth0 eth1}",
        "services={:443}",
        "seccomp.type=None",
        "memory.limit=much",
        "image.repository=",
    ] {
        let refused = helm.render(&[value]).err().with_context(|| format!("{value} is taken"))?;
        ensure!(refused.to_string().contains("don't meet the specifications of the schema"), "{refused}");
    }
    Ok(())
}

/// The schemas know every field that is rendered, in each version; a field that none knows is found.
#[test]
fn kubernetes_knows_each_field() -> Result<()> {
    let Some(helm) = Helm::or_skip() else { return Ok(()) };
    let Some(python) = python_or_skip("kubernetes_validate") else { return Ok(()) };
    let rendered = [helm.render(&[])?, helm.render(&EVERYTHING)?].concat();
    let right = "readOnlyRootFilesystem";
    for (text, is_right) in [(rendered.clone(), true), (rendered.replace(right, "readOnlyRoot"), false)] {
        let file = Scratch::new("manifest.yaml", text.as_bytes())?;
        for version in VERSIONS {
            let mut validate = Command::new("python3");
            validate.env("PYTHONPATH", &python).args([
                "-m",
                "kubernetes_validate",
                "--strict",
                "-k",
                version,
            ]);
            let output = validate.arg(file.path()).output().context("run python3")?;
            let said = String::from_utf8_lossy(&output.stdout);
            let passed = said.matches(" passed for resource ").count();
            // Two policies, and two sets of pods; PodMonitor is the operator's.
            ensure!((output.status.success(), passed == 4) == (is_right, is_right), "{version}: {said}");
        }
    }
    Ok(())
}

/// The limit is what a run takes at its peak, and the headroom.
#[test]
fn the_memory_limit_is_the_peak_of_a_run() -> Result<()> {
    const MOST: u16 = 1024;
    let Some(helm) = Helm::or_skip() else { return Ok(()) };
    for (flows, cpus, interfaces, room) in [
        (1, 1, "{eth0}", 16),
        (262_144, 2, "{eth0}", 16),
        (262_145, 64, "{eth0}", 16),
        (1_000_000, 256, "{a,b,c,d,e,f,g,h,i}", 18),
        (4_194_304, 96, "{eth0,veth*}", MOST),
        (33_554_432, 1024, "{enp[0-9]}", MOST),
        (67_108_864, 8, "{eth0}", 16),
    ] {
        let values =
            [format!("maxFlows={flows}"), format!("cpus={cpus}"), format!("interfaces={interfaces}")];
        let rendered = helm.render(&values.each_ref().map(String::as_str))?;
        let limits = rendered.rsplit("limits:").next().context("limits")?;
        let limit = limits.split_once("memory: ").and_then(|(_, rest)| rest.split_once("Mi\n"));
        let limit: u64 = limit.with_context(|| format!("no limit: {limits}"))?.0.parse()?;
        let options = Options { max_flows: flows, ..Options::default() };
        let expected = peak(&options, cpus, room).div_ceil(1 << 20) + 32;
        ensure!(limit == expected, "{values:?}: {limit} MiB, and a run takes {expected}");
    }
    let processes = Options { processes: true, ..Options::default() };
    for (option, options, room) in [("--wait", Options::default(), MOST), ("--process", processes, 16)] {
        let set = format!("options={{{option}}}");
        let rendered = helm.render(&["cpus=64", "interfaces={eth0}", &set])?;
        let expected = peak(&options, 64, room).div_ceil(1 << 20) + 32;
        ensure!(rendered.contains(&format!("memory: {expected}Mi\n")), "{option}: {expected}: {rendered}");
    }
    Ok(())
}
