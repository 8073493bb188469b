//! Whose a connection is: sockets in control groups of their own, in a pod, behind its node's end of the cable, and
//! at the node's other interface.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Stdio};

use anyhow::{Context, Result, ensure};
use handshake_lab::agent::{Agent, AgentOutcome};
use handshake_lab::control_group::ControlGroup;
use handshake_lab::topology::{DEVICE, FAR_DEVICE};
use handshake_lab::{
    FAMILIES, Family, Namespace, Routed, skip_unless_found, skip_unless_privileged, skip_without_tool, tcp,
};
use serde_json::Value;

use crate::HANDSHAKE;
use crate::network::TIMEOUT;

/// Listens at an address and port, says so, and accepts until it is killed.
const LISTEN: &str = "import socket, sys
family = socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET
listener = socket.create_server((sys.argv[1], int(sys.argv[2])), family=family, backlog=64)
print('ready', flush=True)
held = []
while True: held.append(listener.accept())
";
/// Connects to an address and port, and says its own port.
const CONNECT: &str = "import socket, sys
family = socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET
with socket.socket(family) as client:
    client.settimeout(5)
    outcome = client.connect_ex((sys.argv[1], int(sys.argv[2])))
    print(client.getsockname()[1], outcome, flush=True)
";
const PORT: u16 = 443;

/// A host with a pod: the router is the node, the server is the pod, and the client is elsewhere.
struct Node {
    routed: Routed,
    groups: [ControlGroup; 3],
}

/// The groups of a node: the pod's listener, the pod's client, and the processes elsewhere.
const GROUPS: [&str; 3] = ["listener.service", "client.service", "elsewhere.service"];

/// A process that is killed on drop.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Node {
    /// `None`, and the test is skipped, without what it takes.
    fn new() -> Result<Option<Self>> {
        if skip_unless_privileged() || skip_without_tool("python3") {
            return Ok(None);
        }
        let groups: Vec<ControlGroup> =
            GROUPS.iter().filter_map(|name| ControlGroup::unified(name)).collect();
        if skip_unless_found(groups.len() == GROUPS.len(), "a tree of cgroup v2 in which groups can be made")
        {
            return Ok(None);
        }
        let groups = groups.try_into().ok().context("as many as there are names")?;
        Ok(Some(Self { routed: Routed::new()?, groups }))
    }

    fn start(
        &self,
        group: usize,
        host: &Namespace,
        script: &str,
        to: SocketAddr,
    ) -> Result<(Running, String)> {
        let mut command = self.groups[group].command(host, "python3");
        command.args(["-c", script, &to.ip().to_string(), &to.port().to_string()]);
        let mut running = Running(command.stdout(Stdio::piped()).spawn().context("start python3")?);
        let mut line = String::new();
        BufReader::new(running.0.stdout.take().context("its output")?).read_line(&mut line)?;
        Ok((running, line.trim().to_owned()))
    }

    /// Connects, and returns the port that it came from.
    fn connect(&self, group: usize, host: &Namespace, to: SocketAddr) -> Result<u64> {
        let (mut running, line) = self.start(group, host, CONNECT, to)?;
        running.0.wait()?;
        line.split(' ')
            .next()
            .and_then(|port| port.parse().ok())
            .with_context(|| format!("no port in {line:?}"))
    }

    /// Looks from the pod, from its node's end of the cable, and from the node's other interface while `act`
    /// happens: the flows of each.
    fn watched(&self, act: impl FnOnce() -> Result<()>) -> Result<[Vec<Value>; 3]> {
        let Routed { server: pod, router: node, .. } = &self.routed;
        let places = [(pod, DEVICE), (node, FAR_DEVICE), (node, DEVICE)];
        let words = |device| ["-i", device, "--flows", "--max-flows", "1000"];
        let agents: Result<Vec<Agent>> =
            places.iter().map(|(host, device)| Agent::start(host, HANDSHAKE, &words(device))).collect();
        let agents = agents?;
        act()?;
        let flows = agents.into_iter().map(|agent| {
            let outcome = agent.stop()?;
            let report = outcome.report()?;
            ensure!(report["exact"] == true, "{report}");
            flows_of(&outcome)
        });
        let flows: Result<Vec<_>> = flows.collect();
        flows?.try_into().ok().context("three places")
    }
}

/// The flows that end the output.
fn flows_of(outcome: &AgentOutcome) -> Result<Vec<Value>> {
    let flows = outcome.report()?["flows"].as_array().cloned();
    flows.map_or_else(|| outcome.flows(), Ok)
}

/// The flow from this port of its initiator.
fn from(flows: &[Value], port: u64) -> Result<&Value> {
    flows
        .iter()
        .find(|flow| flow["initiator"]["port"] == port)
        .with_context(|| format!("no {port}: {flows:?}"))
}

/// The units of both ends.
fn units(flow: &Value) -> [Option<&str>; 2] {
    ["initiator", "responder"].map(|end| flow[end]["owner"]["cgroup"].as_str()).map(|path| {
        let name = path?.rsplit('/').next()?;
        GROUPS.into_iter().find(|group| name.ends_with(&format!("-{group}")))
    })
}

const LISTENER: Option<&str> = Some(GROUPS[0]);
const CLIENT: Option<&str> = Some(GROUPS[1]);

/// What the pod's sockets began, and what they were asked: completed, refused, and half-open by a forged SYN. Behind
/// the router alone no owner is known.
#[test]
fn each_end_in_a_pod_is_named_there_and_at_its_nodes_end() -> Result<()> {
    let Some(node) = Node::new()? else { return Ok(()) };
    let Routed { client: elsewhere, server: pod, .. } = &node.routed;
    for family in FAMILIES {
        let path = node.routed.path(family);
        let listener = path.server_at(PORT);
        let far: SocketAddr =
            (if family == Family::V4 { "192.0.2.1" } else { "2001:db8::1" }, PORT).into_socket()?;
        let _own = node.start(0, pod, LISTEN, listener)?;
        let _far = node.start(2, elsewhere, LISTEN, far)?;
        let mut ports = [0; 3];
        let mut forged = Vec::new();
        let seen = node.watched(|| {
            let closed = SocketAddr::new(far.ip(), PORT + 1);
            ports[0] = node.connect(1, pod, far)?;
            ports[1] = node.connect(1, pod, closed)?;
            ports[2] = node.connect(2, elsewhere, listener)?;
            if family == Family::V4 {
                forged = tcp::syn_without_ack(&path, listener, 3)?;
            }
            Ok(())
        })?;
        let [outgoing, refused, accepted] = ports;
        for (flows, place) in seen.iter().zip(["pod", "node's end", "uplink"]) {
            let named = |unit| if place == "uplink" { None } else { unit };
            for (port, verdict, expected) in [
                (outgoing, "completed", [CLIENT, None]),
                (refused, "refused", [CLIENT, None]),
                (accepted, "completed", [None, LISTENER]),
            ] {
                let flow = from(flows, port)?;
                ensure!(flow["verdict"] == verdict, "{family:?}, {place}: {flow}");
                // The far end's cable ends on this machine too, and its first hop still has the socket.
                let ends = units(flow).map(|unit| unit.filter(|unit| *unit != GROUPS[2]));
                ensure!(ends == expected.map(named), "{family:?}, {place}, {verdict}: {flow}");
            }
            for initiator in &forged {
                let flow = from(flows, initiator.port().into())?;
                ensure!(
                    ["opening", "half_open"].iter().any(|open| flow["verdict"] == **open),
                    "{place}: {flow}"
                );
                ensure!(units(flow) == [None, named(LISTENER)], "{place}: {flow}");
            }
        }
    }
    Ok(())
}

/// Words for an address and a port.
trait IntoSocket {
    fn into_socket(self) -> Result<SocketAddr>;
}

impl IntoSocket for (&str, u16) {
    fn into_socket(self) -> Result<SocketAddr> {
        Ok(SocketAddr::new(self.0.parse().context("an address")?, self.1))
    }
}

/// A SYN cookie is sent by no socket: its responder is not known, and not the last one's.
#[test]
fn a_syn_cookie_has_no_owner() -> Result<()> {
    let Some(node) = Node::new()? else { return Ok(()) };
    let Routed { client: elsewhere, server: pod, .. } = &node.routed;
    let listener = node.routed.path(Family::V4).server_at(PORT);
    let _own = node.start(0, pod, LISTEN, listener)?;
    let mut ports = [0; 2];
    let seen = node.watched(|| {
        ports[0] = node.connect(2, elsewhere, listener)?;
        pod.sysctl("net/ipv4/tcp_syncookies", "2")?;
        ports[1] = node.connect(2, elsewhere, listener)?;
        Ok(())
    })?;
    for flows in &seen[..2] {
        for (port, expected) in ports.into_iter().zip([LISTENER, None]) {
            let flow = from(flows, port)?;
            ensure!(flow["verdict"] == "completed" && units(flow)[1] == expected, "{flow}");
        }
    }
    Ok(())
}

/// Two containers with one port, in two namespaces; one agent watches both of the node's cables.
#[test]
fn two_containers_on_one_port_are_told_apart() -> Result<()> {
    let Some(node) = Node::new()? else { return Ok(()) };
    let Routed { client, router, server } = &node.routed;
    let path = node.routed.path(Family::V4);
    let one = path.server_at(PORT);
    let other: SocketAddr = ("192.0.2.1", PORT).into_socket()?;
    let _one = node.start(0, server, LISTEN, one)?;
    let _other = node.start(1, client, LISTEN, other)?;
    let words = ["-i", DEVICE, "-i", FAR_DEVICE, "--flows", "--max-flows", "1000"];
    let agent = Agent::start(router, HANDSHAKE, &words)?;
    let ports = [node.connect(2, client, one)?, node.connect(2, server, other)?];
    let outcome = agent.stop()?;
    let (report, flows) = (outcome.report()?, flows_of(&outcome)?);
    for (port, expected) in ports.into_iter().zip([LISTENER, CLIENT]) {
        ensure!(units(from(&flows, port)?) == [Some(GROUPS[2]), expected], "{report}");
    }
    // The same by workload: what each was asked, and what the third has begun.
    let workloads = report["workloads"].as_array().context("no workloads")?;
    let mut counted: Vec<_> = workloads
        .iter()
        .map(|one| (one["side"].as_str(), one["attempts"].as_u64(), one["completed"].as_u64()))
        .collect();
    counted.sort_unstable();
    let expected = [(Some("initiator"), Some(2), Some(2)), (Some("responder"), Some(1), Some(1))];
    ensure!(counted == [expected[0], expected[1], expected[1]], "{report}");
    Ok(())
}

/// The process and its group are gone before the report.
#[test]
fn what_has_ended_keeps_its_name() -> Result<()> {
    let Some(mut node) = Node::new()? else { return Ok(()) };
    let far: SocketAddr = ("192.0.2.1", PORT).into_socket()?;
    let words = ["-i", DEVICE, "--flows", "--interval", "100ms", "--max-flows", "1000"];
    let mut agent = Agent::start(&node.routed.server, HANDSHAKE, &words)?;
    let port = node.connect(1, &node.routed.server, far)?;
    agent.await_report(TIMEOUT, |report| report["workloads"][0]["owner"].is_object())?;
    node.groups[1] = ControlGroup::unified("another.service").context("another group")?;
    let flows = flows_of(&agent.stop()?)?;
    let flow = from(&flows, port)?;
    ensure!(units(flow)[0] == CLIENT, "{flow}");
    Ok(())
}
