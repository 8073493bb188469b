//! Valid expectations and their meaning, invalid ones and their messages.

use proptest::{prop_assert, prop_assert_eq, proptest};

use super::{Comparator, Expectation, ExpressionTerm, Scope, ValueKind};

#[test]
fn valid_expectations_parse() {
    let table = [
        ("completed >= 1000", "completed >= 1000", ValueKind::Count),
        ("half_open==0", "half_open == 0", ValueKind::Count),
        ("tcp.half_open.now == 0", "tcp.half_open.now == 0", ValueKind::Count),
        ("completed / attempts >= 99.9%", "completed / attempts >= 0.999", ValueKind::Share),
        ("completed / attempts >= 99.9 %", "completed / attempts >= 0.999", ValueKind::Share),
        ("completed / attempts >= 0.999", "completed / attempts >= 0.999", ValueKind::Share),
        ("p99(connect) < 2ms", "p99(connect) < 2000000", ValueKind::Time),
        ("p99.9(connect  of completed) < 2ms", "p99.9(connect of completed) < 2000000", ValueKind::Time),
        ("p99(connect{port=443}) < 2ms", "p99(connect{port=443}) < 2000000", ValueKind::Time),
        (
            "p50( connect of completed { port = 80-90 , address = 10.0.0.2 } ) < 1s",
            "p50(connect of completed{port=80-90,address=10.0.0.2/32}) < 1000000000",
            ValueKind::Time,
        ),
        ("count(connect{port=443}) > 1", "count(connect{port=443}) > 1", ValueKind::Count),
        (
            "latency.connect.p99_ns{port=443} < 1m",
            "latency.connect.p99_ns{port=443} < 60000000000",
            ValueKind::Time,
        ),
        ("p95(syn_to_syn_ack) < 2ms", "p95(syn_to_syn_ack) < 2000000", ValueKind::Time),
        ("p50( syn_to_syn_ack ) <= 1.5 us", "p50(syn_to_syn_ack) <= 1500", ValueKind::Time),
        ("max(syn_ack_to_ack) < 10µs", "max(syn_ack_to_ack) < 10000", ValueKind::Time),
        ("latency.connect.p99_ns < 1m", "latency.connect.p99_ns < 60000000000", ValueKind::Time),
        (
            "excluded(connect) / count(connect) < 5%",
            "excluded(connect) / count(connect) < 0.05",
            ValueKind::Share,
        ),
        ("udp.answered / udp.flows > 99%", "udp.answered / udp.flows > 0.99", ValueKind::Share),
        ("rate(completed) >= 500/s", "rate(completed) >= 500", ValueKind::Rate),
        ("rate(completed + late) >= 0.5 / s", "rate(completed + late) >= 0.5", ValueKind::Rate),
        (
            "rate(completed) / rate(attempts) > 1/2",
            "rate(completed) / rate(attempts) > 0.5",
            ValueKind::Share,
        ),
        ("attempts{port=443} == 200", "attempts{port=443} == 200", ValueKind::Count),
        (
            "attempts { port = 8000-8100 , address = 2001:db8::/32 } == 200",
            "attempts{port=8000-8100,address=2001:db8::/32} == 200",
            ValueKind::Count,
        ),
        ("completed{unit=nginx.service} > 9", "completed{unit=nginx.service} > 9", ValueKind::Count),
        (
            "refused { side = initiator , pod = shop/web-1, container=web } == 0",
            "refused{pod=shop/web-1,container=web,side=initiator} == 0",
            ValueKind::Count,
        ),
        (
            "rate(completed{cgroup=/system.slice/}) > 1/s",
            "rate(completed{cgroup=/system.slice}) > 1",
            ValueKind::Rate,
        ),
        ("completed + late - refused == 7", "completed + late - refused == 7", ValueKind::Count),
        ("completed - (late - refused) == 7", "completed - (late - refused) == 7", ValueKind::Count),
        ("(completed + late) / attempts > 1", "(completed + late) / attempts > 1", ValueKind::Share),
        ("completed / (attempts / 2) > 1", "completed / (attempts / 2) > 1", ValueKind::Number),
        ("completed >= attempts - 3", "completed >= attempts - 3", ValueKind::Count),
        ("completed >= attempts / 2", "completed >= attempts / 2", ValueKind::Count),
        ("signs.ack_ignored == 0", "signs.ack_ignored == 0", ValueKind::Count),
        ("table.evictions.half_open != 3", "table.evictions.half_open != 3", ValueKind::Count),
        ("half_open_expired < 1", "half_open_expired < 1", ValueKind::Count),
        // The measured side is put on the left.
        ("1000 <= completed", "completed >= 1000", ValueKind::Count),
        ("2ms > p99(connect)", "p99(connect) < 2000000", ValueKind::Time),
        ("0 == half_open", "half_open == 0", ValueKind::Count),
        ("completed - attempts >= -5", "completed - attempts >= -5", ValueKind::Count),
        ("p50(connect) - p99(connect) > -1.5us", "p50(connect) - p99(connect) > -1500", ValueKind::Time),
        ("100 - 1 < completed", "completed > 99", ValueKind::Count),
    ];
    for (text, meaning, kind) in table {
        let read = Expectation::of_run(text).unwrap_or_else(|wrong| panic!("{wrong}"));
        let meant = format!("{} {} {}", read.left, read.comparison.sign(), read.right);
        assert_eq!((meant.as_str(), read.kind), (meaning, kind), "{text}");
        assert_eq!(read.text, text.trim());
    }
}

#[test]
fn a_first_byte_and_silence_have_spoken_names() {
    let table: [(&str, &[&str]); 5] = [
        ("p99(first_byte) < 200ms", &["latency.ack_to_first_byte.p99_ns"]),
        ("count(ack_to_first_byte) > 0", &["latency.ack_to_first_byte.count"]),
        ("silent == 0", &["tcp.silent.now", "tcp.signs.was_silent"]),
        ("silent.now{port=443} == 0", &["tcp.silent.now"]),
        ("silent{port=443} == 0", &["tcp.silent.now", "tcp.signs.was_silent"]),
    ];
    for (text, metrics) in table {
        let ExpressionTerm::Figure(figure) =
            Expectation::parse(text, "--expect", Scope::Run).expect(text).left
        else {
            panic!("{text} is a figure")
        };
        assert_eq!(figure.metrics, metrics, "{text}");
    }
}

#[test]
fn shares_are_in_percent_if_written_so() {
    let table = [
        ("completed / attempts >= 99%", true),
        ("completed / attempts >= 0.99", false),
        ("udp.packets / udp.flows > 2", false),
        ("completed / attempts > refused / attempts", true),
        ("completed > 1", false),
    ];
    for (text, percent) in table {
        assert_eq!(Expectation::of_run(text).expect(text).percent, percent, "{text}");
    }
}

/// The column, counted from 1, the number of marked columns, and a part of the message.
#[test]
fn an_invalid_expectation_has_a_message_and_a_place() {
    let table = [
        ("", 1, 1, "a figure or a number is missing"),
        ("completed", 10, 1, "a comparison is missing: one of >= <= == != > <"),
        ("completed >=", 13, 1, "a figure or a number is missing"),
        ("completed 1000", 11, 4, "a comparison is expected here"),
        ("completed = 1000", 11, 1, "did you mean ==?"),
        ("completed ! 1000", 11, 1, "did you mean !=?"),
        ("completed => 1000", 11, 1, "did you mean ==?"),
        ("completed >= >= 1000", 14, 2, "a figure or a number is expected here"),
        ("0 < completed < 10", 15, 1, "one comparison each: --expect twice"),
        ("completed >= 1 && refused == 0", 16, 1, "one comparison each"),
        ("completed >= 1000 attempts", 19, 8, "not a unit: use ns, us"),
        ("p99(connect) < 2ms or refused == 0", 20, 2, "'or' joins nothing"),
        ("completed / attempts > 5% and half_open == 0", 27, 3, "'and' joins nothing"),
        ("p99(connect of refused) < 2ms", 16, 7, "'of' is followed by completed"),
        ("p99(syn_to_syn_ack of completed) < 2ms", 5, 14, "only connect is of all attempts"),
        ("change(completed) >= -1%", 1, 6, "change compares two reports: handshake diff OLD NEW"),
        ("p999(connect) < 2ms", 1, 4, "no function p999"),
        ("completed > 5 and half_open == 0", 15, 3, "'and' joins nothing: --expect twice, or ; between"),
        ("completed >= attempts 1000", 23, 4, "the expectation should end here"),
        ("completd >= 1000", 1, 8, "no metric completd; did you mean completed?"),
        ("1000 <= udp.flow", 9, 8, "did you mean udp.flows?"),
        ("ack_ignored == 0", 1, 11, "did you mean signs.ack_ignored?"),
        ("nonsense == 0", 1, 8, "no metric nonsense: --list-metrics lists all"),
        ("p99 < 2ms", 1, 3, "p99 is a function: p99(connect)"),
        ("completed / s > 5", 13, 1, "a rate is written rate(completed)"),
        ("- completed > 5", 1, 1, "a figure or a number is expected here"),
        ("connect < 2ms", 1, 7, "connect is a leg: p99(connect)"),
        (
            "signs.synack_retransmits == 0",
            1,
            24,
            "no metric signs.synack_retransmits; it is called signs.syn_ack_retransmits now",
        ),
        ("orphan_synack == 0", 1, 13, "no metric orphan_synack; it is called orphan_syn_ack now"),
        ("p99(syn_synack) < 2ms", 5, 10, "; it is called syn_to_syn_ack now"),
        ("p99(synack_ack) < 2ms", 5, 10, "; it is called syn_ack_to_ack now"),
        ("p42(connect) < 2ms", 1, 3, "no function p42: use one of p50, p90, p95, p99, p99.9, max, count"),
        ("first_byte < 2ms", 1, 10, "first_byte is a leg: p99(first_byte)"),
        (
            "p99(first_byte{port=443}) < 2ms",
            5,
            10,
            "of the legs only connect is kept per service: p99(connect{",
        ),
        (
            "latency.syn_to_syn_ack.p99_ns{port=443} < 2ms",
            1,
            29,
            "of the legs only connect is kept per service",
        ),
        ("p99(connect{prot=443}) < 2ms", 13, 8, "no selector prot; did you mean port?"),
        ("p99(connect{port=443,port=80}) < 2ms", 22, 7, "port is given twice"),
        ("rte(completed) > 1/s", 1, 3, "no function rte: use one of p50"),
        (
            "p99(conect) < 2ms",
            5,
            6,
            "p99 takes syn_to_syn_ack, syn_ack_to_ack, connect, ack_to_first_byte; did you mean connect?",
        ),
        ("p99() < 2ms", 5, 1, "p99 takes syn_to_syn_ack"),
        ("p99(connect < 2ms", 4, 1, "the closing ')' is missing"),
        ("(completed >= 3", 1, 1, "the closing ')' is missing"),
        ("completed) >= 3", 10, 1, "a comparison is expected here"),
        ("p99(connect) < 2", 16, 1, "a time needs its unit: 2ms"),
        ("p99(connect) < 2sec", 17, 3, "'sec' is not a unit"),
        ("completed >= 50%", 14, 3, "a count is not a share"),
        ("completed >= 500/s", 14, 5, "a count is not a rate"),
        ("rate(completed) > 500", 19, 3, "a rate needs its unit: 500/s"),
        ("completed / attempts > 2ms", 24, 3, "a share cannot be compared with a time"),
        ("completed + p99(connect) > 1", 13, 12, "a count cannot be summed with a time"),
        ("p99(connect) / attempts > 1", 16, 8, "a time cannot be divided by a count"),
        ("completed / 0 > 1", 13, 1, "division by 0"),
        ("rate(p99(connect)) > 1/s", 5, 14, "rate takes a count"),
        ("rate(rate(completed)) > 1/s", 5, 17, "rate takes a count"),
        ("rate(5) > 1/s", 5, 3, "rate takes a count"),
        ("rate(completed / attempts) > 1/s", 5, 22, "rate takes a count"),
        ("1 == 1", 1, 6, "without a figure"),
        ("attempts{port=http} == 1", 10, 9, "'http' is no port"),
        ("attempts{protocol=6} == 1", 10, 10, "no selector protocol: use port, address, unit, pod"),
        ("attempts{untit=a.service} == 1", 10, 15, "no selector untit; did you mean unit?"),
        ("attempts{unit=nginx} == 1", 10, 10, "'nginx' is no unit: its type belongs to it"),
        ("attempts{cgroup=nginx} == 1", 10, 12, "'nginx' is no path of a control group, as in /"),
        ("attempts{pod=} == 1", 10, 4, "pod has no value, as in web-1"),
        ("attempts{unit=a.service,side=client} == 1", 25, 11, "'client' is no side: use initiator"),
        ("attempts{side=initiator} == 1", 10, 14, "whose side? Add unit, pod, container or cgroup"),
        ("attempts{port=443,unit=a.service} == 1", 19, 14, "services and workloads are counted apart"),
        ("attempts{unit=a.service,unit=b.service} == 1", 25, 14, "unit is given twice"),
        ("late{pod=web-1} == 1", 1, 4, "late is not counted per workload; these are: attempts"),
        ("udp.flows{pod=web-1} == 1", 1, 9, "udp.flows is not counted per workload"),
        ("p99(connect{pod=web-1}) < 2ms", 5, 7, "connect is not counted per workload; these are: att"),
        ("attempts{443} == 1", 10, 3, "a selector is NAME=VALUE"),
        ("attempts{} == 1", 10, 0, "a selector is NAME=VALUE"),
        ("attempts{port=443,port=80} == 1", 19, 7, "port is given twice"),
        ("attempts{port=443 == 1", 9, 14, "the closing '}' is missing"),
        ("attempts{address=10.0.0.0/33} == 1", 10, 19, "longer than the address"),
        ("late{port=443} == 1", 1, 4, "late is not counted per service; these are: attempts"),
        ("{port=443} == 1", 1, 10, "a figure or a number is expected here"),
        ("completed * 2 > attempts", 11, 1, "there is no multiplication"),
        ("completed > 1. ", 13, 2, "digits are missing after the point"),
        ("completed > 1234567890123456789", 13, 19, "at most 18 digits"),
        ("completed > 1; refused == 0", 14, 1, "';' is not expected here"),
        ("completed ≥ 1", 11, 1, "'≥' is not expected here"),
        ("µµµ ≥ 1", 5, 1, "'≥' is not expected here"),
        ("completed > \u{1b}[2J", 13, 1, "'\\u{1b}' is not expected here"),
    ];
    for (text, column, length, said) in table {
        let wrong = Expectation::of_run(text).expect_err(text);
        let place = (wrong.fault.span.start + 1, wrong.fault.span.length);
        assert_eq!(place, (column, length), "{text}: {}", wrong.fault.message);
        assert!(wrong.fault.message.contains(said), "{text}: {}", wrong.fault.message);
    }
    let deep = format!("{}completed{} > 1", "(".repeat(100_000), ")".repeat(100_000));
    assert!(Expectation::of_run(&deep).is_err());
}

/// Any text parses or has an error with a place inside the text. What parses means the same after it is
/// written out and parsed again.
#[test]
fn any_text_parses_or_has_an_error_with_a_place() {
    const WORDS: [&str; 25] = [
        "completed",
        "attempts",
        "p99",
        "connect",
        "rate",
        "(",
        ")",
        "+",
        "-",
        "/",
        "%",
        "{port=1}",
        "{unit=a.service,side=responder}",
        "{",
        "}",
        "1",
        "0.5",
        "ms",
        "s",
        ">=",
        "==",
        "<",
        " ",
        "é",
        "udp.flows",
    ];
    let text = proptest::collection::vec(proptest::sample::select(WORDS.as_slice()), 0..12);
    proptest!(|(words in text)| {
        let text = words.concat();
        match Expectation::of_run(&text) {
            Ok(read) => {
                let anew = format!("{} {} {}", read.left, read.comparison.sign(), read.right);
                // Literals are written without their units.
                if matches!(read.kind, ValueKind::Count | ValueKind::Share | ValueKind::Number) {
                    let again = Expectation::of_run(&anew).unwrap_or_else(|wrong| panic!("{text}: {wrong}"));
                    prop_assert_eq!((&again.left, &again.right), (&read.left, &read.right), "{} is {}", text, anew);
                }
            }
            Err(wrong) => {
                let end = wrong.fault.span.start + wrong.fault.span.length;
                prop_assert!(end <= text.chars().count() + 1, "{}", wrong);
            }
        }
    });
}

#[test]
fn carets_mark_the_place_of_an_error() {
    let wrong = Expectation::of_run("half_open == 0 + completd").expect_err("an unknown metric");
    let shown = wrong.to_string();
    let expected = "--expect, column 18: no metric completd; did you mean completed?\n    \
                    half_open == 0 + completd\n                     ^^^^^^^^";
    assert_eq!(shown, expected);
    // A wide character takes two columns.
    let wide = Expectation::of_run("完成 == 成功").expect_err("no such metric").to_string();
    assert_eq!(wide.lines().skip(1).collect::<Vec<_>>(), ["    完成 == 成功", "    ^^^^"]);
    let wide = Expectation::of_run("completed == 成功 completed").expect_err("no such metric").to_string();
    assert_eq!(wide.lines().nth(2), Some("                 ^^^^"));
}

#[test]
fn comparators_hold_by_the_order_of_the_sides() {
    use std::cmp::Ordering::{Equal, Greater, Less};
    let table = [
        (Comparator::AtLeast, [false, true, true]),
        (Comparator::AtMost, [true, true, false]),
        (Comparator::Equal, [false, true, false]),
        (Comparator::Unequal, [true, false, true]),
        (Comparator::More, [false, false, true]),
        (Comparator::Less, [true, false, false]),
    ];
    for (comparison, expected) in table {
        assert_eq!([Less, Equal, Greater].map(|order| comparison.holds(order)), expected);
        let mirrored = [Greater, Equal, Less].map(|order| comparison.mirrored().holds(order));
        assert_eq!(mirrored, expected, "{comparison:?} from the other side");
    }
}

/// `change`, `old` and `new` are of one report each, and compared with each other.
#[test]
fn two_reports_are_compared() {
    let parse = |text: &str| Expectation::parse(text, "--expect", Scope::TwoReports);
    let table = [
        ("change(p99(connect)) <= 20%", "change(p99(connect)) <= 0.2", ValueKind::Share),
        ("change(completed / attempts) >= -0.5%", "change(completed / attempts) >= -0.005", ValueKind::Share),
        ("new(refused) - old(refused) <= 3", "new(refused) - old(refused) <= 3", ValueKind::Count),
        ("20% >= change(rate(completed))", "change(rate(completed)) <= 0.2", ValueKind::Share),
        ("half_open == 0", "half_open == 0", ValueKind::Count),
    ];
    for (text, written, kind) in table {
        let read = parse(text).unwrap_or_else(|wrong| panic!("{wrong}"));
        assert_eq!(format!("{} {} {}", read.left, read.comparison.sign(), read.right), written);
        assert_eq!(read.kind, kind, "{text}");
    }
    for (text, said) in [
        ("change(old(completed)) < 1%", "old is of figures, and of no other change"),
        ("change(5) < 1%", "change takes a figure"),
        ("change(completed < 3", "the closing ')' is missing"),
    ] {
        let wrong = parse(text).expect_err(text).to_string();
        assert!(wrong.contains(said), "{wrong}");
    }
}
