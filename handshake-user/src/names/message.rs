//! The question for the name of an address, and the answer, by the crate `domain`. Pure.

use std::net::IpAddr;
use std::time::Duration;

use domain::base::iana::Rcode;
use domain::base::{Message, MessageBuilder, Name, Rtype};
use domain::rdata::{Ptr, Soa};

/// How long a failure is kept, and that there is no name where the answer does not say how long.
pub(super) const FAILURE: Duration = Duration::from_secs(60);

/// What is known of an address, and for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// The name; `None` where there is none.
    pub(super) name: Option<String>,
    /// For how long, as the server says.
    pub(super) lasts: Duration,
}

impl Answer {
    /// No server gave an answer.
    pub(super) const FAILED: Self = Self { name: None, lasts: FAILURE };
}

/// What came from a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// The answer.
    Answer(Answer),
    /// The server cannot or does not want to answer: another one may.
    Failure,
    /// It answers something else, and the answer may still come.
    Other,
}

/// The question for the name of an address: a message with one question, for PTR.
pub(super) fn question(id: u16, address: IpAddr) -> Option<Vec<u8>> {
    let name = Name::<Vec<u8>>::reverse_from_addr(address).ok()?;
    let mut message = MessageBuilder::new_vec();
    message.header_mut().set_id(id);
    message.header_mut().set_rd(true);
    let mut message = message.question();
    message.push((name, Rtype::PTR)).ok()?;
    Some(message.finish())
}

/// Reads what came for the question `id` for `address`. Where the answer goes by an alias (RFC 2317), the PTR behind
/// it counts.
pub(super) fn reply(bytes: &[u8], id: u16, address: IpAddr) -> Reply {
    let (Ok(message), Ok(name)) = (Message::from_octets(bytes), Name::<Vec<u8>>::reverse_from_addr(address))
    else {
        return Reply::Other;
    };
    let header = message.header();
    let is_ours = message.sole_question().is_ok_and(|question| {
        *question.qname() == name && question.qtype() == Rtype::PTR && question.qclass().to_int() == 1
    });
    if !header.qr() || header.id() != id || !is_ours {
        return Reply::Other;
    }
    if !matches!(header.rcode(), Rcode::NOERROR | Rcode::NXDOMAIN) {
        return Reply::Failure;
    }
    let found = message.answer().ok().and_then(|answers| {
        let record = answers.limit_to_in::<Ptr<_>>().flatten().next()?;
        Some((record.data().ptrdname().to_string(), record.ttl().into_duration()))
    });
    Reply::Answer(match found {
        Some((name, lasts)) if !name.is_empty() && name != "." => Answer { name: Some(name), lasts },
        Some((_, lasts)) => Answer { name: None, lasts },
        None => Answer { name: None, lasts: absence(&message).unwrap_or(FAILURE) },
    })
}

/// How long it holds that there is no name (RFC 2308, 5).
fn absence(message: &Message<&[u8]>) -> Option<Duration> {
    let record = message.authority().ok()?.limit_to_in::<Soa<_>>().flatten().next()?;
    Some(record.ttl().into_duration().min(record.data().minimum().into_duration()))
}

#[cfg(test)]
pub(super) mod tests {
    use domain::base::iana::Class;
    use domain::base::{ToName as _, Ttl};
    use domain::rdata::Cname;

    use super::*;

    const ID: u16 = 0x4a4b;

    fn address() -> IpAddr {
        "10.0.0.2".parse().expect("an address")
    }

    fn name(text: &str) -> Name<Vec<u8>> {
        text.parse().expect(text)
    }

    /// What a server answers to a question.
    fn answer_of(question: &[u8], rcode: Rcode, name: Option<Name<Vec<u8>>>) -> Vec<u8> {
        let question = Message::from_octets(question).expect("it is whole");
        let asked: Name<Vec<u8>> = question.sole_question().expect("there is one").qname().to_name();
        let mut answer = MessageBuilder::new_vec().start_answer(&question, rcode).expect("there is room");
        if let Some(name) = name {
            answer.push((asked, Class::IN, Ttl::from_secs(300), Ptr::new(name))).expect("there is room");
        }
        answer.finish()
    }

    #[test]
    fn a_question_is_one_for_the_reverse_name() {
        let question = question(ID, address()).expect("it can be asked");
        assert_eq!(&question[..12], [0x4a, 0x4b, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(&question[12..], b"\x012\x010\x010\x0210\x07in-addr\x04arpa\0\0\x0c\0\x01");
        let six = super::question(ID, "2001:db8::7".parse().expect("an address")).expect("it can be asked");
        assert!(six.ends_with(b"\x011\x010\x010\x012\x03ip6\x04arpa\0\0\x0c\0\x01"));
    }

    #[test]
    fn an_answer_is_a_name_for_its_time() {
        let question = question(ID, address()).expect("it can be asked");
        let bytes = answer_of(&question, Rcode::NOERROR, Some(name("web.example")));
        let expected = Answer { name: Some("web.example".to_owned()), lasts: Duration::from_secs(300) };
        assert_eq!(reply(&bytes, ID, address()), Reply::Answer(expected));
        let none = answer_of(&question, Rcode::NXDOMAIN, None);
        assert_eq!(reply(&none, ID, address()), Reply::Answer(Answer { name: None, lasts: FAILURE }));
        let root = answer_of(&question, Rcode::NOERROR, Some(Name::root_vec()));
        let Reply::Answer(Answer { name: None, .. }) = reply(&root, ID, address()) else { panic!("a root") };
        for rcode in [Rcode::SERVFAIL, Rcode::REFUSED, Rcode::FORMERR] {
            assert_eq!(reply(&answer_of(&question, rcode, None), ID, address()), Reply::Failure);
        }
    }

    /// A class-less delegation answers by an alias.
    #[test]
    fn an_alias_is_followed() {
        let question = question(ID, address()).expect("it can be asked");
        let message = Message::from_octets(&question[..]).expect("it is whole");
        let asked: Name<Vec<u8>> = message.sole_question().expect("there is one").qname().to_name();
        let alias = name("2.0-25.0.0.10.in-addr.arpa");
        let mut answer =
            MessageBuilder::new_vec().start_answer(&message, Rcode::NOERROR).expect("there is room");
        let ttl = Ttl::from_secs(60);
        answer.push((asked, Class::IN, ttl, Cname::new(alias.clone()))).expect("there is room");
        answer.push((alias, Class::IN, ttl, Ptr::new(name("web.example")))).expect("there is room");
        let Reply::Answer(found) = reply(&answer.finish(), ID, address()) else { panic!("an answer") };
        assert_eq!(found.name.as_deref(), Some("web.example"));
    }

    #[test]
    fn that_there_is_none_holds_as_long_as_the_zone_says() {
        let question = question(ID, address()).expect("it can be asked");
        let message = Message::from_octets(&question[..]).expect("it is whole");
        let mut answer = MessageBuilder::new_vec()
            .start_answer(&message, Rcode::NXDOMAIN)
            .expect("there is room")
            .authority();
        let times = [7, 8, 9, 40].map(Ttl::from_secs);
        let [refresh, retry, expire, minimum] = times;
        let zone = name("0.0.10.in-addr.arpa");
        let soa = Soa::new(zone.clone(), zone.clone(), 1.into(), refresh, retry, expire, minimum);
        answer.push((zone, Class::IN, Ttl::from_secs(900), soa)).expect("there is room");
        let expected = Answer { name: None, lasts: Duration::from_secs(40) };
        assert_eq!(reply(&answer.finish(), ID, address()), Reply::Answer(expected));
    }

    /// What is not the answer is waited past: another id, another question, a question, or no message.
    #[test]
    fn anything_else_is_no_answer() {
        let question = question(ID, address()).expect("it can be asked");
        let bytes = answer_of(&question, Rcode::NOERROR, Some(name("web.example")));
        assert_eq!(reply(&bytes, ID + 1, address()), Reply::Other);
        assert_eq!(reply(&bytes, ID, "10.0.0.3".parse().expect("an address")), Reply::Other);
        assert_eq!(reply(&question, ID, address()), Reply::Other);
        // Cut anywhere, it is no name.
        for length in 0..bytes.len() {
            match reply(&bytes[..length], ID, address()) {
                Reply::Answer(Answer { name, .. }) => assert_eq!(name, None, "{length}"),
                Reply::Failure | Reply::Other => {}
            }
        }
        // A name that points to itself.
        let mut looped = bytes[..12 + 27].to_vec();
        looped.extend([0xc0, 39, 0, 12, 0, 1, 0, 0, 0, 9, 0, 2, 0xc0, 51]);
        match reply(&looped, ID, address()) {
            Reply::Answer(Answer { name, .. }) => assert_eq!(name, None),
            Reply::Failure | Reply::Other => {}
        }
    }

    /// Whatever bytes a server sends, nothing panics, and it ends.
    #[test]
    fn any_bytes_are_read() {
        let question = question(ID, address()).expect("it can be asked");
        let bytes = answer_of(&question, Rcode::NOERROR, Some(name("web.example")));
        proptest::proptest!(|(changes in proptest::collection::vec((0..bytes.len(), 0..=255_u8), 1..12))| {
            let mut bytes = bytes.clone();
            for (at, byte) in changes {
                bytes[at] = byte;
            }
            let _read = reply(&bytes, ID, address());
        });
    }
}
