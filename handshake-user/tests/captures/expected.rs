//! Compares each capture with an independent reference: every packet class, every TCP flow, every UDP flow.
//! The reference's results are in `expected.json`; the rules it follows are beside that file.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::support::{Replayed, captures, end, folder, name, replay};

/// Resolution of a record's time stamps, ns; both ends of a leg are truncated to it.
const TICK_NS: i64 = 64;
/// Idle time after which a UDP flow expires, ns; the next packet begins another flow.
const UDP_IDLE_NS: u64 = 60_000_000_000;

const SIMULTANEOUS_OPEN: &str = "suricata-tcp-split-handshake-01-4whs-split-handshake-4whs.pcap";

/// Flows whose frames go to a group: `multicast` here. The reference reads the IP addresses alone, and has them
/// unanswered.
const TO_GROUPS: [&str; 4] = [
    "udp 192.168.10.10:138 192.168.10.255:138: verdict",
    "udp 192.168.10.255:137 192.168.10.30:137: verdict",
    "udp 192.168.10.255:137 192.168.10.31:137: verdict",
    "udp [2001:4f8:4:7:2e0:81ff:fe52:9a6b]:13000 [2001:4f8:4:7:2e0:81ff:fe52:ffff]:30000: verdict",
];

#[test]
fn every_capture_matches_the_reference() -> Result<()> {
    let Some(captures) = captures() else { return Ok(()) };
    let text = fs::read_to_string(folder().join("expected.json")).context("read expected.json")?;
    let expected: BTreeMap<String, Value> = serde_json::from_str(&text)?;
    assert_eq!(
        captures.iter().map(|path| name(path)).collect::<Vec<_>>(),
        expected.keys().cloned().collect::<Vec<_>>()
    );
    let mut differences = Vec::new();
    let mut compared = [0; 3];
    for path in &captures {
        let want = &expected[&name(path)];
        let got = replay(path, &[])?;
        let mut comparison = Comparison { name: name(path), differences: &mut differences };
        comparison.keys(want, &["packets", "tcp", "udp"]);
        comparison.packets(&want["packets"], &got.report["packets"]);
        comparison.pair("tcp", array(&want["tcp"]), got.of("tcp"), Comparison::tcp);
        comparison.pair("udp", array(&want["udp"]), got.of("udp"), Comparison::udp);
        compared[0] += want["packets"]["total"].as_u64().unwrap_or(0);
        compared[1] += array(&want["tcp"]).len() as u64;
        compared[2] += array(&want["udp"]).len() as u64;
    }
    println!(
        "{} captures: {} packets, {} TCP flows, {} UDP flows",
        captures.len(),
        compared[0],
        compared[1],
        compared[2]
    );
    assert!(compared.iter().all(|count| *count > 100), "hardly anything was compared: {compared:?}");
    let is_known = |difference: &Difference| TO_GROUPS.contains(&difference.figure.as_str());
    let known = differences.iter().filter(|difference| is_known(difference)).count();
    assert_eq!(known, TO_GROUPS.len(), "an entry is no difference any more: {differences:#?}");
    differences.retain(|difference| !is_known(difference));
    assert!(differences.is_empty(), "{} differences:\n{differences:#?}", differences.len());
    Ok(())
}

/// Both SYNs of a simultaneous open belong to the flow (RFC 9293 §3.5, figure 7):
///
/// ```text
/// 1.1.1.1:12345 → 2.2.2.2:80     SYN      seq=1000
/// 2.2.2.2:80    → 1.1.1.1:12345  SYN      seq=3000
/// 1.1.1.1:12345 → 2.2.2.2:80     SYN+ACK  seq=1000 ack=3001
/// 2.2.2.2:80    → 1.1.1.1:12345  ACK      seq=3001 ack=1001
/// ```
///
/// Therefore [`the_flows_account_for_every_handshake_packet`] also holds here.
#[test]
fn a_simultaneous_open_counts_the_syns_of_both_ends() -> Result<()> {
    let Some(captures) = captures() else { return Ok(()) };
    let path = captures.iter().find(|path| name(path) == SIMULTANEOUS_OPEN).context("the capture")?;
    let got = replay(path, &[])?;
    let flows = got.of("tcp");
    assert_eq!(flows.len(), 1);
    assert_eq!(
        (&flows[0]["verdict"], &flows[0]["flags"][0]),
        (&"completed".into(), &"simultaneous_open".into())
    );
    assert_eq!((&flows[0]["syn"], &flows[0]["syn_ack"]), (&2.into(), &1.into()));
    assert_eq!(got.report["packets"]["syn"], 2);
    Ok(())
}

/// Every handshake packet of the packet classes belongs to a flow, and the flows add up to the totals.
#[test]
fn the_flows_account_for_every_handshake_packet() -> Result<()> {
    let Some(captures) = captures() else { return Ok(()) };
    for path in captures {
        let got = replay(&path, &[])?;
        let name = name(&path);
        let mut counted = 0;
        for class in ["syn", "syn_ack", "ack"] {
            counted += number(&got.report["packets"][class]) - sum(&got, class);
        }
        assert_eq!(
            counted,
            number(&got.report["packets"]["copies"]),
            "{name}: packets of no flow are copies"
        );
        let attempts = got.of("tcp").iter().filter(|flow| !is_outside(flow)).count() as u64;
        assert_eq!(attempts, number(&got.report["tcp"]["attempts"]), "{name}: attempts");
        assert_eq!(got.of("udp").len() as u64, number(&got.report["udp"]["flows"]), "{name}: UDP flows");
        assert_eq!(&got.report["exact"], &Value::Bool(true), "{name}");
    }
    Ok(())
}

fn is_outside(flow: &Value) -> bool {
    matches!(flow["verdict"].as_str(), Some("midstream" | "orphan_syn_ack"))
}

fn sum(got: &Replayed, field: &str) -> u64 {
    got.of("tcp").iter().map(|flow| number(&flow[field])).sum()
}

/// A figure that differs from the reference.
#[derive(Debug)]
#[expect(dead_code, reason = "all of it is printed")]
struct Difference {
    capture: String,
    figure: String,
    reference: String,
    ours: String,
}

/// Collects the differences of one capture.
struct Comparison<'a> {
    name: String,
    differences: &'a mut Vec<Difference>,
}

impl Comparison<'_> {
    fn differ(&mut self, what: &str, want: impl std::fmt::Debug, got: impl std::fmt::Debug) {
        self.differences.push(Difference {
            capture: self.name.clone(),
            figure: what.to_owned(),
            reference: format!("{want:?}"),
            ours: format!("{got:?}"),
        });
    }

    /// An expectation that is not compared is a difference.
    fn keys(&mut self, want: &Value, known: &[&str]) {
        for key in want.as_object().into_iter().flat_map(|object| object.keys()) {
            if !known.contains(&key.as_str()) {
                self.differ("an expectation that is not compared", key, ());
            }
        }
    }

    fn packets(&mut self, want: &Value, got: &Value) {
        for (class, count) in want.as_object().into_iter().flatten() {
            let ours = match class.as_str() {
                "icmp_and_ip_other" => number(&got["icmp"]) + number(&got["ip_other"]),
                class => got[class].as_u64().unwrap_or(u64::MAX),
            };
            if number(count) != ours {
                self.differ(&format!("packets.{class}"), number(count), ours);
            }
        }
    }

    /// Compares the flows of each pair of ends, in their order.
    fn pair(
        &mut self,
        protocol: &str,
        want: &[Value],
        got: Vec<&Value>,
        compare: fn(&mut Self, &str, &Value, &Value),
    ) {
        let mut pairs: BTreeMap<[String; 2], (Vec<&Value>, Vec<&Value>)> = BTreeMap::new();
        for flow in want {
            let text = |side: &str| flow[side].as_str().unwrap_or_default().to_owned();
            pairs.entry(unordered([text("initiator"), text("responder")])).or_default().0.push(flow);
        }
        for flow in got {
            pairs.entry(unordered(ends(flow))).or_default().1.push(flow);
        }
        for (ends, (want, got)) in pairs {
            let what = format!("{protocol} {} {}", ends[0], ends[1]);
            if want.len() != got.len() {
                self.differ(&format!("{what}: flows"), want.len(), got.len());
            }
            want.iter().zip(got).for_each(|(want, got)| compare(self, &what, want, got));
        }
    }

    fn tcp(&mut self, what: &str, want: &Value, got: &Value) {
        /// The counts, with the index of their copies in the reference's `copies`.
        const COUNTS: [(&str, usize); 3] = [("syn", 0), ("syn_ack", 1), ("syn_retransmits", 0)];
        const KEYS: [&str; 13] = [
            "syn",
            "syn_ack",
            "syn_retransmits",
            "copies",
            "legs_unknown",
            "initiator",
            "responder",
            "direction_is_a_guess",
            "verdicts",
            "ack_from_initiator",
            "ack_from_responder",
            "syn_to_syn_ack_ns",
            "syn_ack_to_ack_ns",
        ];
        self.keys(want, &KEYS);
        self.direction(what, want, got);
        self.verdict(what, want, got);
        for (count, copies) in COUNTS {
            let (theirs, ours) = (number(&want[count]), number(&got[count]));
            // A second packet within 10 ms may be a copy or a retransmission.
            let least = theirs.saturating_sub(number(&want["copies"][copies]));
            if !(least..=theirs).contains(&ours) {
                self.differ(&format!("{what}: {count}"), theirs, ours);
            }
        }
        let acks = number(&want["ack_from_initiator"]) + number(&want["ack_from_responder"]);
        if acks != number(&got["ack"]) {
            self.differ(&format!("{what}: ack"), acks, &got["ack"]);
        }
        self.legs(what, want, got);
    }

    fn legs(&mut self, what: &str, want: &Value, got: &Value) {
        if want["legs_unknown"] == true {
            for leg in ["syn_to_syn_ack_ns", "syn_ack_to_ack_ns", "connect_ns"] {
                if !got[leg].is_null() {
                    self.differ(&format!("{what}: {leg}"), "unknown", &got[leg]);
                }
            }
            return;
        }
        self.leg(what, "syn_to_syn_ack_ns", want, got, number(&got["syn_retransmits"]) > 0);
        self.leg(what, "syn_ack_to_ack_ns", want, got, number(&got["syn_ack_retransmits"]) > 0);
    }

    fn direction(&mut self, what: &str, want: &Value, got: &Value) {
        let theirs =
            [&want["initiator"], &want["responder"]].map(|end| end.as_str().unwrap_or_default().to_owned());
        if want["direction_is_a_guess"] != true && theirs != ends(got) {
            self.differ(&format!("{what}: direction"), theirs, ends(got));
        }
    }

    /// The reference lists every acceptable verdict.
    fn verdict(&mut self, what: &str, want: &Value, got: &Value) {
        let verdict = got["verdict"].as_str().unwrap_or_default();
        let ours = match (verdict, got["cause"].as_str()) {
            ("half_open", Some(cause)) => format!("half_open.{cause}"),
            _ => verdict.to_owned(),
        };
        if !array(&want["verdicts"]).iter().any(|verdict| *verdict == ours.as_str()) {
            self.differ(&format!("{what}: verdict"), &want["verdicts"], ours);
        }
    }

    /// handshake leaves out a leg that a retransmission makes ambiguous (Karn's rule), and one that would be
    /// negative. Other legs match the reference to a tick.
    fn leg(&mut self, what: &str, leg: &str, want: &Value, got: &Value, blurred: bool) {
        let (theirs, ours) = (want[leg].as_i64(), got[leg].as_i64());
        let agree = match (theirs, ours) {
            (None, None) => true,
            (Some(theirs), Some(ours)) => (theirs - ours).abs() <= TICK_NS,
            (Some(theirs), None) => blurred || theirs < 0,
            (None, Some(_)) => false,
        };
        if !agree {
            self.differ(&format!("{what}: {leg}"), theirs, ours);
        }
    }

    fn udp(&mut self, what: &str, want: &Value, got: &Value) {
        self.keys(
            want,
            &["initiator", "responder", "packets", "verdicts", "longest_silence_ns", "same_endpoint"],
        );
        if number(&want["longest_silence_ns"]) > UDP_IDLE_NS || want["same_endpoint"] == true {
            self.differ(&format!("{what}: a case that is not compared"), want, ());
        }
        self.direction(what, want, got);
        self.verdict(what, want, got);
        if want["packets"] != got["packets"] {
            self.differ(&format!("{what}: packets"), &want["packets"], &got["packets"]);
        }
    }
}

fn ends(flow: &Value) -> [String; 2] {
    [end(&flow["initiator"]), end(&flow["responder"])]
}

fn unordered(mut ends: [String; 2]) -> [String; 2] {
    ends.sort();
    ends
}

fn array(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}
