//! The options of `replay` for comparisons: `--compat` and `--squeeze`.

use anyhow::Result;
use handshake_lab::frame::flag;
use serde_json::Value;

use crate::made::{CLIENT, Made, Row, SERVER};
use crate::support::{replay, run_replay};

const SYN: Row = (CLIENT, flag::SYN, 1_000, 0);
const SYN_ACK: Row = (SERVER, flag::SYN | flag::ACK, 5_000, 1_001);
const THIRD: Row = (CLIENT, flag::ACK, 1_001, 5_001);
const THIRD_WITH_FIN: Row = (CLIENT, flag::FIN | flag::ACK, 1_001, 5_001);
const REFUSAL: Row = (SERVER, flag::RST | flag::ACK, 0, 1_001);
/// A RST at an unexpected sequence number; it ends nothing.
const STRAY_RST: Row = (SERVER, flag::RST, 77, 0);

/// Segments, and the verdict and bits that follow from them.
#[test]
fn completeness_has_a_bit_for_each_class_of_segment() -> Result<()> {
    let rows: [(&[Row], &str, u64); 9] = [
        (&[SYN], "half_open", 1),
        (&[SYN, SYN_ACK], "half_open", 3),
        (&[SYN, SYN_ACK, THIRD], "completed", 7),
        (&[SYN, SYN_ACK, THIRD_WITH_FIN], "completed", 7),
        (&[SYN, SYN_ACK, THIRD, REFUSAL], "completed", 39),
        (&[SYN, REFUSAL], "refused", 33),
        (&[SYN, STRAY_RST], "half_open", 33),
        (&[SYN_ACK], "orphan_syn_ack", 2),
        (&[THIRD, STRAY_RST], "midstream", 36),
    ];
    for (segments, verdict, bits) in rows {
        let made = Made::segments("completeness", 1_000, segments)?;
        let flow = &replay(made.path(), &["--compat"])?.flows[0];
        assert_eq!(
            (&flow["verdict"], &flow["completeness"]),
            (&verdict.into(), &bits.into()),
            "{segments:?}"
        );
    }
    Ok(())
}

/// A new attempt on the same ports is a new stream, as in Wireshark.
#[test]
fn completeness_is_reset_by_a_new_attempt() -> Result<()> {
    let again: Row = (CLIENT, flag::SYN, 90_000, 0);
    let made = Made::segments("anew", 1_000, &[SYN, SYN_ACK, THIRD, STRAY_RST, again])?;
    let got = replay(made.path(), &["--compat"])?;
    let bits: Vec<_> = got.flows.iter().filter_map(|flow| flow["completeness"].as_u64()).collect();
    assert_eq!(bits, [39, 1]);
    Ok(())
}

#[test]
fn compat_adds_completeness_to_text_and_events() -> Result<()> {
    let made = Made::segments("compat", 1_000, &[SYN, SYN_ACK, THIRD])?;
    let text = |options: &[&str]| Ok(String::from_utf8(run_replay(made.path(), options)?.stdout)?);
    let said: Result<Vec<String>> =
        [&["--compat", "--flows"][..], &["--compat", "--events", "all"], &["--flows"]]
            .into_iter()
            .map(text)
            .collect();
    let said: Vec<_> = said?.iter().map(|text| text.contains("completeness 7")).collect();
    assert_eq!(said, [true, true, false]);
    assert_eq!(replay(made.path(), &[])?.flows[0].get("completeness"), None);
    let error = run_replay(made.path(), &["--compat"]).expect_err("there is no flow to add it to");
    assert!(error.to_string().contains("--flows or --events"), "{error}");
    Ok(())
}

/// An hour between SYN and SYN+ACK: expired and orphaned in real time, completed with shortened pauses.
#[test]
fn squeeze_shortens_pauses() -> Result<()> {
    const HOUR_US: u64 = 3_600_000_000;
    let made = Made::segments("squeeze", HOUR_US, &[SYN, SYN_ACK, THIRD])?;
    let verdicts = |options: &[&str]| -> Result<Vec<Value>> {
        Ok(replay(made.path(), options)?.flows.iter().map(|flow| flow["verdict"].clone()).collect())
    };
    assert_eq!(verdicts(&[])?, ["half_open_expired", "orphan_syn_ack"]);
    assert_eq!(verdicts(&["--squeeze", "2h"])?, ["half_open_expired", "orphan_syn_ack"]);
    assert_eq!(verdicts(&["--squeeze", "1s"])?, ["completed"]);
    let flow = &replay(made.path(), &["--squeeze", "1s"])?.flows[0];
    // Equal up to the records' resolution of 64 ns.
    assert_eq!(flow["syn_to_syn_ack_ns"], 1_000_000_000);
    Ok(())
}
