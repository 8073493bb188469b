//! Each frame of a capture once more, as a mirror of both directions or two taps show it: nothing changes but the
//! classes and the counts of packets.

use std::collections::VecDeque;

use anyhow::Result;
use handshake_lab::frame::flag;
use serde_json::Value;

use crate::made::{CLIENT, LINKTYPE_ETHERNET, Made, Recorded, SERVER, frame, frame_between, read_pcap};
use crate::support::{captures, in_parallel, name, replay, run_replay};

/// How much later the copies come, ns: at most a tenth of what makes them retransmissions.
const DELAYS: [u64; 2] = [10_000, 1_000_000];

#[test]
fn a_capture_with_each_frame_twice_has_the_same_verdicts() -> Result<()> {
    let Some(captures) = captures() else { return Ok(()) };
    let compared = in_parallel(&captures, |path| {
        let (link_type, frames) = read_pcap(path)?;
        let name = name(path);
        let once = figures(link_type, &format!("once-{name}"), &frames)?;
        for delay in DELAYS {
            let twice = figures(link_type, &format!("twice-{delay}-{name}"), &doubled(&frames, delay))?;
            assert_eq!(twice, once, "{name}, {delay} ns later");
        }
        Ok(frames.len())
    })?;
    println!("{} frames of {} captures", compared.iter().sum::<usize>(), captures.len());
    assert!(compared.iter().all(|frames| *frames > 0), "a capture without frames");
    Ok(())
}

/// A signed attempt of each kind: wrong numbers, an ignored ACK, a stranger, a reset, a second K.
#[test]
fn copies_raise_no_sign() -> Result<()> {
    let (syn, syn_ack, ack) = (flag::SYN, flag::SYN | flag::ACK, flag::ACK);
    let rows = [
        (CLIENT, syn, 100, 0),
        (SERVER, syn_ack, 500, 99),
        (CLIENT, syn, 100, 0),
        (SERVER, syn_ack, 500, 101),
        (CLIENT, ack, 101, 777),
        (SERVER, syn_ack, 500, 101),
        (CLIENT, ack, 101, 501),
        (SERVER, syn_ack, 500, 101),
        (SERVER, syn_ack, 500, 101),
        (CLIENT, syn, 9_000, 0),
        (SERVER, ack, 501, 101),
        (CLIENT, flag::RST, 101, 0),
        (CLIENT, syn, 200, 0),
        (SERVER, flag::RST | flag::ACK, 0, 201),
        (CLIENT, syn, 200, 0),
        (CLIENT, syn, 300, 0),
        (SERVER, syn_ack, 700, 201),
        (CLIENT, ack, 201, 701),
    ];
    let at = |(row, number): (&_, u64)| {
        let bytes = frame(row)?;
        Ok(Recorded { time_ns: number * 20_000_000, length: u32::try_from(bytes.len())?, bytes })
    };
    let frames = rows.iter().zip(1..).map(at).collect::<Result<Vec<_>>>()?;
    let once = figures(LINKTYPE_ETHERNET, "signs-once", &frames)?;
    for delay in DELAYS {
        let twice = figures(LINKTYPE_ETHERNET, &format!("signs-twice-{delay}"), &doubled(&frames, delay))?;
        assert_eq!(twice, once, "{delay} ns");
    }
    Ok(())
}

/// Where most frames are there twice, or most attempts have two numbers, the report says what that means.
#[test]
fn the_report_names_what_it_was_recorded_at() -> Result<()> {
    let text = |name: &str, frames: &[Recorded]| -> Result<String> {
        let output = run_replay(Made::record(name, frames)?.path(), &[])?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (syn, syn_ack, ack) = (flag::SYN, flag::SYN | flag::ACK, flag::ACK);
    let (mut plain, mut rewritten) = (Vec::new(), Vec::new());
    for port in 0..20_u16 {
        let ends = [format!("10.0.0.1:{}", 40_000 + port), "10.0.0.2:80".to_owned()];
        // The same handshake, and the same with both numbers moved.
        let inner = [(0, syn, 100, 0), (1, syn_ack, 500, 101), (0, ack, 101, 501)];
        let outer = [(0, syn, 7_100, 0), (1, syn_ack, 90_500, 7_101), (0, ack, 7_101, 90_501)];
        for (index, (one, other)) in inner.into_iter().zip(outer).enumerate() {
            let time_ns = u64::from(port) * 1_000_000_000 + index as u64 * 20_000_000 + 1_000_000;
            let made =
                |(from, flags, seq, number): (usize, u8, u32, u32), time_ns: u64| -> Result<Recorded> {
                    let ends: [&str; 2] = [&ends[from], &ends[1 - from]];
                    let bytes = frame_between(ends, flags, seq, number)?;
                    Ok(Recorded { time_ns, length: u32::try_from(bytes.len())?, bytes })
                };
            plain.push(made(one, time_ns)?);
            rewritten.push(made(one, time_ns)?);
            rewritten.push(made(other, time_ns + 100_000)?);
        }
    }
    let (mirror, numbers) = ("each frame is seen twice", "two sequence numbers");
    let shown = |text: &str| (text.contains(mirror), text.contains(numbers));
    assert_eq!(shown(&text("odd-plain", &plain)?), (false, false));
    assert_eq!(shown(&text("odd-mirror", &doubled(&plain, 100_000))?), (true, false));
    assert_eq!(shown(&text("odd-rewritten", &rewritten)?), (false, true));
    Ok(())
}

/// The frames in their order, and each once more `delay` ns later: before the next frame that is later still.
fn doubled(frames: &[Recorded], delay: u64) -> Vec<Recorded> {
    let later = |frame: &Recorded| Recorded { time_ns: frame.time_ns + delay, ..frame.clone() };
    let (mut both, mut due) = (Vec::new(), VecDeque::<Recorded>::new());
    for frame in frames {
        while let Some(copy) = due.pop_front_if(|copy| copy.time_ns < frame.time_ns) {
            both.push(copy);
        }
        both.push(frame.clone());
        due.push_back(later(frame));
    }
    both.extend(due);
    both
}

/// What the copies must not change: attempts, verdicts, signs and legs.
fn figures(link_type: u32, name: &str, frames: &[Recorded]) -> Result<[Value; 2]> {
    let got = replay(Made::record_of(link_type, name, frames)?.path(), &[])?;
    let mut latency = got.report["latency"].clone();
    if let Some(of_all) = latency["connect_of_all"].as_object_mut() {
        // An age at the end of a capture: the last copy ends it later.
        of_all.retain(|name, _| !name.ends_with("_at_least_ns"));
    }
    Ok([got.report["tcp"].clone(), latency])
}
