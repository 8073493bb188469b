//! `--events`: attempts one by one, as they become half-open and as they end.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use handshake_lab::tcp::{self, Attempts, Listener};
use handshake_lab::{Family, skip_unless_privileged};
use serde_json::Value;

use crate::network::{TIMEOUT, segment};

/// The reports are far apart; the rows are not. Clients repeat their SYN after 1 s and 3 s, so that those
/// without an answer expire before they repeat it a third time.
const RULES: [&str; 6] = ["--interval", "200s", "--half-open-after", "300ms", "--expire-after", "2500ms"];

/// The event and the verdict of each row of a client, in the order of the output.
fn rows_of(flows: &[Value], client: SocketAddr) -> Vec<(String, String)> {
    let is_of = |flow: &&Value| {
        flow["initiator"]["port"] == client.port() && flow["initiator"]["address"] == client.ip().to_string()
    };
    let words = |flow: &Value| {
        let word = |name: &str| flow[name].as_str().unwrap_or_default().to_owned();
        (word("event"), word("verdict"))
    };
    flows.iter().filter(is_of).map(words).collect()
}

#[test]
fn a_half_open_attempt_has_a_row_at_t1_and_one_at_its_end() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    for family in [Family::V4, Family::V6] {
        let network = segment()?;
        let path = network.path(family);
        let mut agent = network.watch(&[&["--events", "failed"][..], &RULES].concat())?;
        let listener = Listener::new(&path, 0, 16)?;
        let completed = tcp::connect_accept(&path, &listener, 5)?;
        let refused = tcp::refused(&path, 2)?;
        let (deaf, slow) = (Listener::deaf(&path, 0)?, Listener::deaf(&path, 0)?);
        let lost = Attempts::start(&path, deaf.address(), 3)?;
        let late = Attempts::start(&path, slow.address(), 1)?;
        let is_at = |flow: &Value, to: SocketAddr| flow["responder"]["port"] == to.port();
        agent.await_flow(TIMEOUT, |flow| flow["event"] == "half_open" && is_at(flow, slow.address()))?;
        slow.hear()?;
        late.wait_established(TIMEOUT)?;
        for _ in 0..3 {
            agent.await_flow(TIMEOUT, |flow| flow["verdict"] == "half_open_expired")?;
        }
        let outcome = agent.stop()?;
        let flows = outcome.flows()?;

        let pair = |end: &str| vec![row("half_open", "half_open"), row("ended", end)];
        let clients: Vec<SocketAddr> = flows
            .iter()
            .filter(|flow| flow["event"] == "half_open" && is_at(flow, deaf.address()))
            .map(initiator)
            .collect::<Result<_>>()?;
        ensure!(clients.len() == 3, "{flows:?}");
        for client in clients {
            let rows = rows_of(&flows, client);
            ensure!(rows == pair("half_open_expired"), "{client}: {rows:?}");
        }
        let of_slow: Vec<&Value> = flows.iter().filter(|flow| is_at(flow, slow.address())).collect();
        let client = initiator(of_slow[0])?;
        ensure!(rows_of(&flows, client) == pair("completed"), "{of_slow:?}");
        ensure!(of_slow[1]["flags"] == serde_json::json!(["late"]), "{of_slow:?}");
        for client in completed.initiators()? {
            ensure!(rows_of(&flows, client).is_empty(), "it completed in time: {client}");
        }
        let refused: Vec<&Value> = flows.iter().filter(|flow| is_at(flow, refused)).collect();
        ensure!(refused.len() == 2 && refused.iter().all(|flow| flow["event"] == "ended"), "{refused:?}");
        // One report, at the end.
        ensure!(outcome.values()?.iter().filter(|value| value["type"] == "report").count() == 1);
        drop(lost);
    }
    Ok(())
}

fn row(event: &str, verdict: &str) -> (String, String) {
    (event.to_owned(), verdict.to_owned())
}

fn initiator(flow: &Value) -> Result<SocketAddr> {
    let address = flow["initiator"]["address"].as_str().context("an address")?.parse()?;
    let port = flow["initiator"]["port"].as_u64().context("a port")?;
    Ok(SocketAddr::new(address, u16::try_from(port)?))
}
