//! The image, run by podman and its program by runc alone: as user 65534, with three capabilities, on a root
//! file system that is read-only. Each container has a network namespace of its own, so nothing of the
//! machine is touched.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use handshake_lab::agent::Agent;
use handshake_lab::topology::Pair;
use serde_json::{Value, json};

use super::super::pod::{Container, Pod};
use super::super::{Release, image};
use crate::shell;

/// What is run in a container: two seconds of an interface that every network namespace has.
const WATCH: [&str; 7] = ["watch", "-i", "lo", "--for", "2s", "-o", "json"];
/// What loading and attaching take.
const CAPABILITIES: [&str; 3] = ["CAP_BPF", "CAP_PERFMON", "CAP_NET_ADMIN"];
/// The name of runc's container.
const CONTAINER: &str = "handshake-proof";
/// What loading may take.
const LOADING: Duration = Duration::from_secs(60);
/// `nobody`.
const USER: u32 = 65_534;
/// Where podman keeps its containers.
const STORAGE: &str = "/var/lib/containers/storage";
/// What the error says where the engine's own profile refuses bpf().
const ADVICE: &str = "--security-opt seccomp=handshake-seccomp.json";

/// Runs the image of an archive.
pub(super) fn prove(release: &Release, archive: &Path) -> Result<()> {
    ensure!(shell::is_root(), "containers with capabilities take root");
    let profile = release.root.join("packaging/handshake-seccomp.json");
    by_podman(release, archive, &profile)?;
    println!(
        "podman: the image attaches as user {USER} with our profile; with podman's own the error names ours"
    );
    by_runc(release, &profile)?;
    println!("runc: the program attaches with our profile on a read-only root");
    Ok(())
}

fn by_podman(release: &Release, archive: &Path, profile: &Path) -> Result<()> {
    let podman = || {
        let mut command = shell::pristine("podman");
        let folder = release.folder("podman");
        command.arg("--root").arg(folder.join("root")).arg("--runroot").arg(folder.join("run"));
        command.args(["--storage-driver", "vfs", "--cgroup-manager", "cgroupfs", "--runtime", "runc"]);
        command
    };
    let reference = image::reference(release);
    let run = |options: &[&str], words: &[&str]| {
        let mut command = podman();
        command.args(["run", "--rm", "--network", "none", "--read-only", "--cap-drop", "all"]);
        // Where the engine itself runs in a container, its own limits are higher than those it may set.
        command.args(["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"]);
        command.args(["--cap-add", &CAPABILITIES.join(",")]).args(options).arg(&reference).args(words);
        output(&mut command)
    };
    shell::run(podman().args(["load", "--input"]).arg(archive))?;
    let printed = run(&[], &["generate", "seccomp"])?;
    ensure!(printed.stdout == fs::read(profile)?, "the image has another profile: {printed:?}");
    let ours = format!("seccomp={}", profile.display());
    watched(&run(&["--security-opt", &ours], &WATCH)?)?;
    let refused = run(&[], &WATCH)?;
    let said = String::from_utf8_lossy(&refused.stderr);
    ensure!(refused.status.code() == Some(5) && said.contains(ADVICE), "not 5 and the profile: {refused:?}");
    as_in_kubernetes(release, profile, &podman)?;
    named(release, &podman)?;
    shell::run(podman().args(["rmi", "--force", &reference]))
}

/// What the manifest runs: the first container writes the profile, and the other one serves with it.
fn as_in_kubernetes(release: &Release, profile: &Path, podman: &dyn Fn() -> Command) -> Result<()> {
    const ADDRESS: &str = "127.0.0.1";
    let pod = Pod::read(&release.root)?;
    ensure!(pod.main.image == image::reference(release), "{} is no image of this release", pod.main.image);
    let node = release.folder("kubelet");
    fs::create_dir_all(&node).with_context(|| format!("make {}", node.display()))?;
    let run = |container: &Container, options: &[&str]| {
        let mut command = podman();
        command.args(["run", "--network", "none", "--read-only", "--security-opt", "no-new-privileges"]);
        command.args(["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"]);
        command.args(["--user", &container.user.to_string()]);
        command.args(container.capabilities.drop.iter().flat_map(|name| ["--cap-drop", name]));
        command.args(container.capabilities.add.iter().flat_map(|name| ["--cap-add", name]));
        command.args(options).arg(&container.image).args(container.args(ADDRESS));
        output(&mut command)
    };
    let mount = format!("{}:/seccomp", node.display());
    let written = run(&pod.first, &["--rm", "--volume", &mount])?;
    let name = pod.first.args(ADDRESS).pop().context("a file")?;
    let file = node.join(name.strip_prefix("/seccomp/").context("a file of the node")?);
    ensure!(fs::read(&file).ok() == fs::read(profile).ok(), "no profile at {}: {written:?}", file.display());
    let ours = format!("seccomp={}", file.display());
    let options = ["--detach", "--env", "HANDSHAKE_INTERFACE=lo", "--security-opt", &ours];
    let started = run(&pod.main, &options)?;
    let id = String::from_utf8_lossy(&started.stdout).trim().to_owned();
    ensure!(started.status.success(), "not started: {started:?}");
    let served = served(podman, &id);
    let stopped = output(podman().args(["stop", "--time", "10", &id]))?;
    let code = output(podman().args(["wait", &id]))?;
    let said = output(podman().args(["logs", &id]))?;
    shell::run(podman().args(["rm", "--force", &id]))?;
    served.with_context(|| format!("{said:?}"))?;
    ensure!(code.stdout.trim_ascii() == b"0", "not ended well: {stopped:?} {code:?} {said:?}");
    println!("podman: what the Kubernetes manifest runs is ready, and its metrics are exact");
    Ok(())
}

/// Connections to a container that listens have its name, at the other end of its network. The program that watches
/// sees podman's files of this proof in the place of the machine's.
fn named(release: &Release, podman: &dyn Fn() -> Command) -> Result<()> {
    const NAME: &str = "hs-web";
    const CONNECTIONS: usize = 3;
    let network = Pair::new()?;
    let (node, pod) = (&network.client, &network.server);
    let storage = release.folder("podman").join("root");
    let script = format!("mount --bind {} {STORAGE} && exec \"$@\"", storage.display());
    fs::create_dir_all(STORAGE).with_context(|| format!("make {STORAGE}"))?;
    let profile = release.root.join("packaging/handshake-seccomp.json");
    let mut start = podman();
    start.args(["run", "--detach", "--name", NAME, "--read-only", "--cap-drop", "all", "--cap-add"]);
    start.args([&CAPABILITIES.join(","), "--network", &format!("ns:{}", pod.path().display())]);
    start.args(["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"]);
    start.args(["--security-opt", &format!("seccomp={}", profile.display()), &image::reference(release)]);
    shell::run(start.args(["serve", "-i", "lo", "--metrics-listen", "192.0.2.2:9477"]))?;
    let watch = || -> Result<_> {
        let mut watch = node.command("unshare");
        watch.args(["--mount", "sh", "-c", &script, "sh"]).arg(release.folder("layer/usr/bin/handshake"));
        let mut agent =
            Agent::attach(with(watch, &["watch", "-i", "eth0", "--events", "all", "-o", "jsonl"]), 1)?;
        let deadline = Instant::now() + LOADING;
        while node.run("curl", &["--fail", "--silent", "http://192.0.2.2:9477/healthz"]).is_err() {
            ensure!(Instant::now() < deadline, "the container does not answer");
            sleep(Duration::from_millis(200));
        }
        for _ in 1..CONNECTIONS {
            node.run("curl", &["--silent", "http://192.0.2.2:9477/healthz"])?;
        }
        let is_named = |flow: &Value| flow["responder"]["owner"]["container"] == NAME;
        agent.await_flow(LOADING, is_named)?;
        let flows = agent.stop()?.flows()?;
        let completed = flows.iter().filter(|flow| flow["verdict"] == "completed");
        ensure!(completed.clone().count() >= CONNECTIONS && completed.clone().all(is_named), "{flows:#?}");
        Ok(())
    };
    let watched = watch();
    shell::run(podman().args(["rm", "--force", NAME]))?;
    watched?;
    println!("podman: each connection to a container has its name");
    Ok(())
}

fn with(mut command: Command, words: &[&str]) -> Command {
    command.args(words);
    command
}

/// Waits until the container is ready, and asks for its metrics.
fn served(podman: &dyn Fn() -> Command, id: &str) -> Result<()> {
    let process = output(podman().args(["inspect", "--format", "{{.State.Pid}}", id]))?;
    let process = String::from_utf8_lossy(&process.stdout).trim().to_owned();
    let get = |path: &str| {
        let mut command = shell::pristine("nsenter");
        command.args(["--net", "--target", &process, "curl", "--fail", "--silent"]);
        output(command.arg(format!("http://127.0.0.1:9477{path}")))
    };
    let deadline = Instant::now() + LOADING;
    while !get("/readyz")?.status.success() {
        ensure!(Instant::now() < deadline, "not ready");
        sleep(Duration::from_millis(200));
    }
    let page = get("/metrics")?;
    let page = String::from_utf8_lossy(&page.stdout);
    ensure!(page.contains("\nhandshake_exact 1\n"), "{page}");
    Ok(())
}

/// runc takes a folder with the files and a configuration: its own example, and what is different for us.
fn by_runc(release: &Release, profile: &Path) -> Result<()> {
    let bundle = release.folder("bundle");
    let config = bundle.join("config.json");
    if bundle.exists() {
        fs::remove_dir_all(&bundle).with_context(|| format!("remove {}", bundle.display()))?;
    }
    fs::create_dir_all(&bundle).with_context(|| format!("make {}", bundle.display()))?;
    shell::run(shell::pristine("runc").args(["spec", "--bundle"]).arg(&bundle))?;
    let mut example: Value = serde_json::from_slice(&fs::read(&config)?).context("runc spec")?;
    let profile: Value = serde_json::from_slice(&fs::read(profile)?).context("the profile")?;
    set(&mut example, &release.folder("layer"), profile);
    fs::write(&config, example.to_string()).context("write config.json")?;
    let runc = || {
        let mut command = shell::pristine("runc");
        command.arg("--root").arg(release.folder("runc"));
        command
    };
    // What a run that was interrupted has left.
    runc().args(["delete", "--force", CONTAINER]).output().context("start runc")?;
    watched(&output(runc().args(["run", "--bundle"]).arg(&bundle).arg(CONTAINER))?)
}

fn set(config: &mut Value, files: &Path, mut profile: Value) {
    let words = ["/usr/bin/handshake"].iter().chain(&WATCH).collect::<Vec<_>>();
    let sets = ["bounding", "effective", "permitted", "inheritable", "ambient"];
    config["process"]["args"] = json!(words);
    config["process"]["terminal"] = json!(false);
    config["process"]["user"] = json!({"uid": USER, "gid": USER});
    config["process"]["noNewPrivileges"] = json!(true);
    config["process"]["capabilities"] =
        sets.iter().map(|set| ((*set).to_owned(), json!(CAPABILITIES))).collect();
    config["root"] = json!({"path": files, "readonly": true});
    // What engines make of a profile: the architecture of the machine, and no comments.
    if let Some(profile) = profile.as_object_mut() {
        profile.remove("archMap");
        profile.insert("architectures".to_owned(), json!(["SCMP_ARCH_X86_64"]));
    }
    config["linux"]["seccomp"] = profile;
}

/// It attached, reported without a loss and ended well.
fn watched(output: &Output) -> Result<()> {
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let interface = &report["source"]["interfaces"][0]["name"];
    ensure!(
        output.status.success() && report["exact"] == true && interface == "lo",
        "no report on lo: {output:?}"
    );
    Ok(())
}

fn output(command: &mut Command) -> Result<Output> {
    let name = command.get_program().to_string_lossy().into_owned();
    command.output().with_context(|| format!("start {name}"))
}
