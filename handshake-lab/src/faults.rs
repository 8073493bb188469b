//! Faults whose owner is known, looked at from the client, the router and the server at once: `why` names the
//! owner, and `check` fails with the sentence of the same cause.
//!
//! ```text
//! client ───── router ───── server :443
//!   why          why          why        the owner, by each seat
//!   check        check        check      the exit code, and the sentence of the cause
//! ```

use std::fmt;
use std::net::SocketAddr;
use std::path::Path as FilePath;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use handshake_common::flow::Family;
use handshake_common::verdict::{Cause, Seat};
use rustix::net::{SendFlags, send};
use serde_json::Value;

use crate::agent::Agent;
use crate::namespace::Namespace;
use crate::schema;
use crate::tcp::{Attempts, Connections, Listener, connect_accept, syn_without_ack_from};
use crate::topology::{DEVICE, FAR_DEVICE, Routed};

/// Attempts of a fault: more than `why` waits for.
const ATTEMPTS: usize = 40;
/// The port of the service.
const PORT: u16 = 443;
/// That of a small service beside it.
const SMALL: u16 = 9001;
/// The limit for an answer, on a busy machine.
const LIMIT: Duration = Duration::from_secs(40);

/// From where it is looked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The host of the initiators.
    Client,
    /// The router between, which watches both of its interfaces.
    Router,
    /// The host of the responders.
    Server,
}

impl Place {
    /// Every place.
    pub const ALL: [Self; 3] = [Self::Client, Self::Router, Self::Server];

    /// The host.
    #[must_use]
    pub const fn host(self, routed: &Routed) -> &Namespace {
        match self {
            Self::Client => &routed.client,
            Self::Router => &routed.router,
            Self::Server => &routed.server,
        }
    }

    /// Its watched interfaces.
    #[must_use]
    pub const fn devices(self) -> &'static [&'static str] {
        match self {
            Self::Client | Self::Server => &[DEVICE],
            Self::Router => &[DEVICE, FAR_DEVICE],
        }
    }

    const fn seat(self) -> Seat {
        match self {
            Self::Client => Seat::Initiator,
            Self::Router => Seat::Between,
            Self::Server => Seat::Responder,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Client => "client",
            Self::Router => "router",
            Self::Server => "server",
        })
    }
}

/// What lasts while it is looked.
#[derive(Debug, Default)]
pub struct Traffic {
    listeners: Vec<Listener>,
    attempts: Vec<Attempts>,
    connections: Vec<Connections>,
}

/// What is expected from a place: the exit code of `why` and words of its owner, the exit code of `check`, and
/// the cause whose sentence `check` prints.
#[derive(Clone, Copy, Debug)]
struct Expected(i32, &'static str, i32, Option<Cause>);

/// A fault of the path, of a host or of an application.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// Its name.
    pub name: &'static str,
    /// What there is before it is looked.
    prepare: fn(&Routed) -> Result<Traffic>,
    /// What comes then.
    act: fn(&Routed, &mut Traffic) -> Result<()>,
    /// The port that `why` finds by itself; without one it is asked about the service.
    found: Option<u16>,
    /// Whether it takes the time after which a client would have repeated its SYN.
    is_slow: bool,
    expected: [Expected; 3],
}

/// A flood of forged sources has another seat at the client: the addresses are not its own.
const FLOOD: &str = "flood";

/// Each fault, and a healthy service.
pub const FAULTS: [Fault; 9] = [
    Fault { name: "healthy", act: listening, expected: [Expected(0, "", 0, None); 3], ..USUAL },
    Fault {
        name: "dropped by the server's firewall",
        prepare: |routed| dropping(&routed.server, "input", "tcp dport 443"),
        act: listening,
        expected: [
            Expected(1, "the path, or the far host", 1, Some(Cause::NoSynAck)),
            Expected(1, "the responder's side", 1, Some(Cause::NoSynAck)),
            Expected(1, "this host: a local firewall", 1, Some(Cause::NoSynAck)),
        ],
        ..USUAL
    },
    Fault {
        name: "SYN+ACKs dropped by the router",
        prepare: |routed| dropping(&routed.router, "forward", "tcp sport 443"),
        act: listening,
        expected: [
            Expected(1, "the path, or the far host", 1, Some(Cause::NoSynAck)),
            Expected(1, "this host: it does not pass them on", 1, Some(Cause::NoAck)),
            Expected(1, "the network back to the clients", 1, Some(Cause::NoAck)),
        ],
        ..USUAL
    },
    Fault {
        name: "SYNs dropped before the server",
        prepare: |routed| dropping(&routed.router, "forward", "tcp dport 443"),
        act: listening,
        expected: [
            Expected(1, "the path, or the far host", 1, Some(Cause::NoSynAck)),
            Expected(
                1,
                "this host, unless they leave by a way that is not watched",
                1,
                Some(Cause::NoSynAck),
            ),
            Expected(3, "what is before this host", 3, None),
        ],
        ..USUAL
    },
    Fault {
        name: "overloaded listener",
        prepare: full_queue,
        act: |routed, traffic| connect(routed, traffic, PORT),
        expected: [
            Expected(1, "the path, or the far host", 1, Some(Cause::NoSynAck)),
            Expected(1, "the responder's side", 1, Some(Cause::NoSynAck)),
            Expected(1, "accepts too slowly", 1, Some(Cause::NoSynAck)),
        ],
        ..USUAL
    },
    Fault {
        name: "refused",
        act: |routed, traffic| connect(routed, traffic, PORT),
        expected: [
            Expected(1, "the responder: its service does not listen", 1, None),
            Expected(1, "the responder: its service does not listen", 1, None),
            Expected(1, "the application: it does not run", 1, None),
        ],
        ..USUAL
    },
    Fault {
        name: "accepted and never answered",
        prepare: |routed| open(routed, PORT),
        act: ask,
        expected: [
            Expected(1, "the responder's application: it accepts and does not answer", 1, None),
            Expected(1, "the responder's application: it accepts and does not answer", 1, None),
            Expected(1, "accepts and does not answer", 1, None),
        ],
        ..USUAL
    },
    Fault {
        name: FLOOD,
        prepare: |routed| open(routed, PORT),
        act: flood,
        is_slow: true,
        expected: [Expected(1, "the network's edge: forged sources", 1, Some(Cause::NoAck)); 3],
        ..USUAL
    },
    Fault {
        name: "a small service down beside a busy one",
        prepare: |routed| dropping(&routed.server, "input", "tcp dport 9001"),
        act: beside,
        found: Some(SMALL),
        expected: [
            Expected(1, "the path, or the far host", 1, Some(Cause::NoSynAck)),
            Expected(1, "the responder's side", 1, Some(Cause::NoSynAck)),
            Expected(1, "this host: a local firewall", 1, Some(Cause::NoSynAck)),
        ],
        ..USUAL
    },
];

/// What most of them are.
const USUAL: Fault = Fault {
    name: "",
    prepare: |_| Ok(Traffic::default()),
    act: |_, _| Ok(()),
    found: None,
    is_slow: false,
    expected: [Expected(0, "", 0, None); 3],
};

impl Fault {
    /// Makes the fault, looks at it from every place at once, and judges what is said. `swift`: attempts are
    /// half-open sooner than by default, where that is enough.
    ///
    /// # Errors
    /// An answer, an exit code or a sentence is not that of the fault, or the network cannot be made.
    pub fn judge(&self, binary: &FilePath, swift: bool) -> Result<()> {
        let routed = Routed::new()?;
        let mut traffic = (self.prepare)(&routed)?;
        let rules: &[&str] = if swift && !self.is_slow { &["--half-open-after", "400ms"] } else { &[] };
        let mut checks = Vec::new();
        for place in Place::ALL {
            checks.push(check(binary, &routed, place, rules)?);
        }
        // At once, because an answer does not wait long.
        let mut asked = Place::ALL.map(|place| self.ask_why(binary, &routed, place, rules));
        for (place, agent) in Place::ALL.iter().zip(&mut asked) {
            let Ok(agent) = agent else { break };
            agent.await_attached(place.devices().len())?;
        }
        (self.act)(&routed, &mut traffic)?;
        let mut wrong = Vec::new();
        let places = Place::ALL.iter().zip(self.expected);
        for ((place, expected), (why, (check, input))) in places.zip(asked.into_iter().zip(checks)) {
            let why = why?.wait(LIMIT)?;
            let answer = why.values()?.pop().with_context(|| format!("no answer: {}", why.stderr))?;
            schema::check(&answer)?;
            wrong.extend(self.judge_why(*place, expected, why.status.code(), &answer));
            // The command of the check ends, and what it opened is settled.
            drop(input);
            let check = check.wait(LIMIT)?;
            wrong.extend(self.judge_check(*place, expected, check.status.code(), &check.stderr));
        }
        drop(traffic);
        if !wrong.is_empty() {
            bail!("{}:\n{}", self.name, wrong.join("\n"));
        }
        Ok(())
    }

    fn ask_why(&self, binary: &FilePath, routed: &Routed, place: Place, rules: &[&str]) -> Result<Agent> {
        let mut command = place.host(routed).command(binary);
        command.args(["why", "-o", "json", "--max-flows", "1000"]).args(rules);
        command.args(self.found.is_none().then_some(":443"));
        command.args(place.devices().iter().flat_map(|device| ["-i", device]));
        Agent::begin(command)
    }

    fn judge_why(
        &self,
        place: Place,
        expected: Expected,
        code: Option<i32>,
        answer: &Value,
    ) -> Option<String> {
        let Expected(wanted, words, ..) = expected;
        let owner = answer["owner"].as_str().unwrap_or_default();
        let port = self.found.unwrap_or(PORT);
        let names_service = wanted != 1 || answer["service"]["port"] == port;
        let is_right =
            code == Some(wanted) && owner.contains(words) && names_service && answer["exact"] == true;
        (!is_right).then(|| format!("why at the {place}: exit {code:?} instead of {wanted}: {answer:#}"))
    }

    fn judge_check(&self, place: Place, expected: Expected, code: Option<i32>, said: &str) -> Option<String> {
        let Expected(_, _, wanted, cause) = expected;
        let seat = if self.name == FLOOD && place == Place::Client { Seat::Between } else { place.seat() };
        // The sentence may be wrapped.
        let words: Vec<&str> = said.split_whitespace().collect();
        let is_said = cause.is_none_or(|cause| words.join(" ").contains(cause.sentence(seat)));
        (code != Some(wanted) || !is_said)
            .then(|| format!("check at the {place}: exit {code:?} instead of {wanted}:\n{said}"))
    }
}

/// A check that runs until its input ends.
fn check(
    binary: &FilePath,
    routed: &Routed,
    place: Place,
    rules: &[&str],
) -> Result<(Agent, std::process::ChildStdin)> {
    let mut command = place.host(routed).command(binary);
    command.args(["check", "--max-flows", "1000"]).args(rules);
    command.args(["--expect", "completed / attempts >= 99%", "--expect", "silent < 5"]);
    command.args(place.devices().iter().flat_map(|device| ["-i", device]));
    command.args(["--", "cat"]);
    Agent::attach_fed(command, place.devices().len())
}

/// Makes a host drop what matches a rule of nftables, at a hook of its own.
///
/// # Errors
/// `nft` refuses.
pub fn drop_by(host: &Namespace, hook: &str, rule: &str) -> Result<()> {
    let chain = format!("add chain inet t c {{ type filter hook {hook} priority 0; }}");
    for line in ["add table inet t", &chain, &format!("add rule inet t c {rule} drop")] {
        host.run("nft", &[line])?;
    }
    Ok(())
}

fn dropping(host: &Namespace, hook: &str, rule: &str) -> Result<Traffic> {
    drop_by(host, hook, rule)?;
    Ok(Traffic::default())
}

/// A service that listens.
fn open(routed: &Routed, port: u16) -> Result<Traffic> {
    let mut traffic = Traffic::default();
    traffic.listeners.push(Listener::new(&routed.path(Family::V4), port, 1024)?);
    Ok(traffic)
}

fn listening(routed: &Routed, traffic: &mut Traffic) -> Result<()> {
    traffic.listeners.extend(open(routed, PORT)?.listeners);
    connect(routed, traffic, PORT)
}

fn connect(routed: &Routed, traffic: &mut Traffic, port: u16) -> Result<()> {
    let path = routed.path(Family::V4);
    traffic.attempts.push(Attempts::start(&path, path.server_at(port), ATTEMPTS)?);
    Ok(())
}

/// A listener whose accept queue is full: its owner does not accept.
fn full_queue(routed: &Routed) -> Result<Traffic> {
    const BACKLOG: u8 = 3;
    let path = routed.path(Family::V4);
    let mut traffic = Traffic::default();
    let listener = Listener::new(&path, PORT, BACKLOG.into())?;
    let queued = Attempts::start(&path, listener.address(), usize::from(BACKLOG) + 1)?;
    queued.wait_established(LIMIT)?;
    traffic.listeners.push(listener);
    traffic.attempts.push(queued);
    Ok(traffic)
}

/// Each client asks as soon as it is connected, and the server reads nothing.
fn ask(routed: &Routed, traffic: &mut Traffic) -> Result<()> {
    let listener = traffic.listeners.first().context("a listener")?;
    for _ in 0..ATTEMPTS {
        let connections = connect_accept(&routed.path(Family::V4), listener, 1)?;
        for client in &connections.clients {
            send(client, b"GET / HTTP/1.1\r\n\r\n", SendFlags::empty()).context("ask")?;
        }
        traffic.connections.push(connections);
    }
    Ok(())
}

/// SYNs of forged sources, and some clients beside them.
fn flood(routed: &Routed, traffic: &mut Traffic) -> Result<()> {
    let path = routed.path(Family::V4);
    let to: SocketAddr = traffic.listeners.first().context("a listener")?.address();
    for port in 0..3 {
        syn_without_ack_from(&path, 40_000 + port, to, 150)?;
    }
    traffic.connections.push(connect_accept(&path, &traffic.listeners[0], 10)?);
    Ok(())
}

/// A busy service that is well, and a small one that is not.
fn beside(routed: &Routed, traffic: &mut Traffic) -> Result<()> {
    let path = routed.path(Family::V4);
    let [busy, small] = [PORT, SMALL].map(|port| Listener::new(&path, port, 1024));
    let busy = busy?;
    traffic.attempts.push(Attempts::start(&path, path.server_at(SMALL), ATTEMPTS / 4)?);
    traffic.connections.push(connect_accept(&path, &busy, 4 * ATTEMPTS)?);
    traffic.listeners.extend([busy, small?]);
    Ok(())
}

/// Judges each fault whose name has one of `words` (each without words) `rounds` times, and says after each round
/// how many were wrong.
///
/// # Errors
/// A fault was not judged rightly in each round; the error has what was said in the wrong ones.
pub fn judge_all(binary: &FilePath, words: &[String], rounds: u32, say: &mut dyn FnMut(&str)) -> Result<()> {
    let is_chosen = |fault: &&Fault| words.is_empty() || words.iter().any(|word| fault.name.contains(word));
    let mut chosen: Vec<(&Fault, u32)> = FAULTS.iter().filter(is_chosen).map(|fault| (fault, 0)).collect();
    let mut wrong = Vec::new();
    for round in 1..=rounds {
        for (fault, right) in &mut chosen {
            match fault.judge(binary, false) {
                Ok(()) => *right += 1,
                Err(error) => wrong.push(format!("round {round}: {error:#}")),
            }
        }
        say(&format!("round {round} of {rounds}: {} wrong so far", wrong.len()));
    }
    for (fault, right) in chosen {
        say(&format!("{right} of {rounds}  {}", fault.name));
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}
