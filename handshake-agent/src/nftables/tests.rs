//! Rules as the kernel tells them, and what is read in them.

use super::*;
use crate::netlink::{Message, MessageBody, pack};

type Expression = (&'static str, MessageBody);

fn attributes_of() -> MessageBody {
    MessageBody::default()
}

fn word(body: MessageBody, kind: u16, number: u32) -> MessageBody {
    body.with(kind, &number.to_be_bytes())
}

fn value(body: MessageBody, kind: u16, value: &[u8]) -> MessageBody {
    body.nest(kind, &attributes_of().with(1, value))
}

fn payload(base: u32, offset: u32, length: u32) -> Expression {
    let fields = [(1, 1), (2, base), (3, offset), (4, length)];
    ("payload", fields.into_iter().fold(attributes_of(), |body, (kind, number)| word(body, kind, number)))
}

fn meta(key: u32) -> Expression {
    ("meta", word(word(attributes_of(), 1, 1), 2, key))
}

fn compare(how: u32, with: &[u8]) -> Expression {
    ("cmp", value(word(word(attributes_of(), 1, 1), 2, how), 3, with))
}

fn range(how: u32, from: &[u8], to: &[u8]) -> Expression {
    let head = word(word(attributes_of(), 1, 1), 2, how);
    ("range", value(value(head, 3, from), 4, to))
}

fn port(offset: u32, port: u16) -> [Expression; 2] {
    [payload(2, offset, 2), compare(0, &port.to_be_bytes())]
}

fn address(to: [u8; 4]) -> [Expression; 2] {
    [payload(1, 16, 4), compare(0, &to)]
}

fn counter(packets: u64) -> Expression {
    ("counter", attributes_of().with(1, &0_u64.to_be_bytes()).with(2, &packets.to_be_bytes()))
}

fn verdict(code: u32) -> Expression {
    let verdict = attributes_of().nest(2, &word(attributes_of(), 1, code));
    ("immediate", word(attributes_of(), 1, 0).nest(2, &verdict))
}

fn reject(with: u32) -> Expression {
    ("reject", word(attributes_of(), 1, with))
}

fn target(name: &str, with: u32) -> Expression {
    let name = format!("{name}\0");
    ("target", attributes_of().with(1, name.as_bytes()).with(3, &with.to_ne_bytes()))
}

fn message(kind: u16, family: u8, body: &MessageBody) -> Message {
    Message { kind, body: [&[family, 0, 0, 0], body.bytes()].concat() }
}

fn rule(family: u8, expressions: impl IntoIterator<Item = Expression>) -> Message {
    let list = expressions.into_iter().fold(attributes_of(), |list, (name, data)| {
        list.nest(1, &attributes_of().with(1, format!("{name}\0").as_bytes()).nest(2, &data))
    });
    let head = attributes_of().with(1, b"t\0").with(2, b"c\0").with(3, &4_u64.to_be_bytes());
    message(NEW_RULE, family, &head.nest(4, &list))
}

fn chain(policy: u32, packets: Option<u64>) -> Message {
    let body = word(attributes_of().with(1, b"t\0").with(3, b"c\0"), 5, policy);
    let body = packets
        .map(counter)
        .map(|(_, counters)| counters)
        .into_iter()
        .fold(body, |body, counters| body.nest(8, &counters));
    message(NEW_CHAIN, family::INET, &body)
}

fn read(message: &Message) -> Option<CountedRule> {
    let all = counted_rules(&pack(message).expect("a short message"));
    assert!(all.len() < 2);
    all.into_iter().next()
}

#[test]
fn a_rule_counts_what_it_drops_where_nothing_comes_between() {
    /// How its expressions are made, and what it counted.
    type Row<'a> = (&'a [fn() -> Expression], Option<(u64, Deed)>);
    let table: [Row<'_>; 11] = [
        (&[|| counter(7), || verdict(0)], Some((7, Deed::Drop))),
        (&[|| counter(7), || ("log", attributes_of()), || verdict(0)], Some((7, Deed::Drop))),
        (&[|| counter(7), || reject(0)], Some((7, Deed::Reject))),
        (&[|| counter(7), || reject(1)], Some((7, Deed::Reset))),
        (&[|| counter(7), || target("REJECT", 3)], Some((7, Deed::Reject))),
        (&[|| counter(7), || target("REJECT", 7)], Some((7, Deed::Reset))),
        (&[|| counter(7), || target("TCPMSS", 7)], None),
        (&[|| counter(7), || verdict(1)], None),
        (&[|| verdict(0)], None),
        (&[|| counter(7), || ("limit", attributes_of()), || verdict(0)], None),
        (&[|| counter(7)], None),
    ];
    for (expressions, expected) in table {
        let found = read(&rule(family::IP, expressions.iter().map(|make| make())));
        assert_eq!(found.map(|rule| (rule.packets, rule.deed)), expected);
    }
    let mark = || ("immediate", value(word(attributes_of(), 1, 1), 2, &[7]));
    let marked = read(&rule(family::IP, [counter(7), mark(), verdict(0)])).expect("it drops");
    assert_eq!(marked.to_string(), "the rule ip t c handle 4");
    let other = read(&rule(family::IP6, [counter(7), target("REJECT", 7)])).expect("it rejects");
    assert_eq!((other.deed, other.family()), (Deed::Reject, "ip6"));
}

#[test]
fn a_chain_that_drops_by_policy_counts_if_it_has_counters() {
    let found = read(&chain(0, Some(9))).expect("it drops and counts");
    assert_eq!((found.packets, found.handle, found.deed), (9, None, Deed::Drop));
    assert_eq!(found.to_string(), "the policy of the chain inet t c");
    assert!(found.may_concern(None));
    assert_eq!((read(&chain(1, Some(9))), read(&chain(0, None))), (None, None));
}

fn dropping(family: u8, conditions: impl IntoIterator<Item = Expression>) -> CountedRule {
    let all = conditions.into_iter().chain([counter(1), verdict(0)]);
    read(&rule(family, all)).expect("it drops and counts")
}

#[test]
fn a_rule_of_another_port_address_or_protocol_is_told_apart() {
    use family::{INET, IP, IP6};
    let bytes = u16::to_be_bytes;
    let table = [
        (dropping(INET, []), true),
        (dropping(INET, port(2, 443)), true),
        (dropping(INET, port(0, 443)), true),
        (dropping(INET, port(2, 444)), false),
        (dropping(INET, port(0, 444)), false),
        // An initiator with the service's port is one of many.
        (dropping(INET, port(0, 443).into_iter().chain(port(2, 443))), false),
        (dropping(INET, [payload(2, 2, 2), compare(1, &bytes(443))]), false),
        (dropping(INET, [payload(2, 2, 2), compare(1, &bytes(444))]), true),
        (dropping(INET, [payload(2, 2, 2), compare(5, &bytes(400)), compare(3, &bytes(500))]), true),
        (dropping(INET, [payload(2, 2, 2), compare(5, &bytes(444)), compare(3, &bytes(500))]), false),
        (dropping(INET, [payload(2, 2, 2), compare(2, &bytes(443))]), false),
        (dropping(INET, [payload(2, 2, 2), compare(4, &bytes(442))]), true),
        (dropping(INET, [payload(2, 2, 2), range(0, &bytes(1), &bytes(442))]), false),
        (dropping(INET, [payload(2, 2, 2), range(0, &bytes(1), &bytes(443))]), true),
        (dropping(INET, [meta(16), compare(0, &[17])]), false),
        (dropping(INET, [meta(16), compare(0, &[6])]), true),
        (dropping(INET, [meta(15), compare(0, &[IP6])]), false),
        (dropping(INET, [meta(4), compare(0, &[9])]), true),
        (dropping(IP, [payload(1, 9, 1), compare(0, &[1])]), false),
        (dropping(IP, [payload(1, 16, 4), compare(0, &[10, 0, 0, 2])]), true),
        // It may be an initiator's.
        (dropping(IP, [payload(1, 16, 3), compare(0, &[10, 0, 1])]), true),
        (dropping(IP, address([10, 0, 1, 2]).into_iter().chain(port(2, 443))), false),
        (dropping(IP, address([10, 0, 0, 2]).into_iter().chain(port(2, 443))), true),
        (dropping(IP6, []), false),
        (dropping(family::ARP, []), false),
        // The initiators' ports are many.
        (dropping(INET, [payload(2, 0, 2), compare(5, &bytes(1_024))]), true),
        (dropping(INET, [payload(2, 0, 2), compare(5, &bytes(50_000)), compare(3, &bytes(50_100))]), false),
        // What was changed, or comes by another register, is not known.
        (dropping(INET, [payload(2, 2, 2), ("bitwise", attributes_of()), compare(0, &bytes(1))]), true),
        (dropping(INET, [payload(2, 2, 2), ("cmp", value(word(attributes_of(), 1, 2), 3, &[0]))]), true),
    ];
    let service = Some("10.0.0.2:443".parse().expect("an address"));
    for (rule, expected) in table {
        assert_eq!(rule.may_concern(service), expected, "{rule:?}");
        let is_tcp =
            !rule.conditions.iter().any(|one| !one.may_hold(&Segment { to_service: true, service: None }));
        assert_eq!(rule.may_concern(None), is_tcp && rule.family != family::ARP, "{rule:?}");
    }
}

#[test]
fn the_same_rule_is_found_again() {
    let rule = dropping(family::INET, []);
    assert!(rule.is_same(&CountedRule { packets: 9, ..rule.clone() }));
    for other in [
        CountedRule { handle: Some(5), ..rule.clone() },
        CountedRule { table: "u".to_owned(), ..rule.clone() },
        CountedRule { family: family::IP, ..rule.clone() },
    ] {
        assert!(!rule.is_same(&other), "{other:?}");
    }
}

#[test]
fn a_reading_ends_where_its_bytes_do() {
    let one = pack(&rule(family::INET, port(2, 443).into_iter().chain([counter(1), verdict(0)])));
    let two = [one.expect("a short message"), pack(&chain(0, Some(2))).expect("a short message")].concat();
    assert_eq!(counted_rules(&two).len(), 2);
    for cut in 0..two.len() {
        assert!(counted_rules(&two[..cut]).len() < 2, "cut at {cut}");
    }
}
