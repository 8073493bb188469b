//! What a helper and the process that it serves tell each other: words of five bytes about the command and the
//! figures, and texts with their length about files and figures.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};

/// Bytes of an order or an answer: what it is, and a number.
pub(super) const WORD: usize = 5;
/// The longest text: no report comes near it.
const MOST: u64 = 1 << 32;

/// What the helper is to do with the command, or with the figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Start it.
    Start,
    /// Stop it by this signal.
    Stop(i32),
    /// Kill it.
    Kill,
    /// End, and leave what it has left behind.
    Leave,
    /// Read the figures.
    Read,
}

/// What has become of the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// It runs.
    Started,
    /// It could not be started: this errno.
    Refused(i32),
    /// It has ended with this wait status.
    Ended(i32),
}

impl Order {
    pub(super) fn encode(self) -> [u8; WORD] {
        match self {
            Self::Start => word(1, 0),
            Self::Stop(signal) => word(2, signal),
            Self::Kill => word(3, 0),
            Self::Leave => word(4, 0),
            Self::Read => word(5, 0),
        }
    }

    pub(super) fn decode(word: [u8; WORD]) -> Option<Self> {
        match taken(word) {
            (1, _) => Some(Self::Start),
            (2, signal) => Some(Self::Stop(signal)),
            (3, _) => Some(Self::Kill),
            (4, _) => Some(Self::Leave),
            (5, _) => Some(Self::Read),
            _ => None,
        }
    }
}

impl Answer {
    pub(super) fn encode(self) -> [u8; WORD] {
        match self {
            Self::Started => word(1, 0),
            Self::Refused(errno) => word(2, errno),
            Self::Ended(status) => word(3, status),
        }
    }

    pub(super) fn decode(word: [u8; WORD]) -> Option<Self> {
        match taken(word) {
            (1, _) => Some(Self::Started),
            (2, errno) => Some(Self::Refused(errno)),
            (3, status) => Some(Self::Ended(status)),
            _ => None,
        }
    }
}

fn word(what: u8, number: i32) -> [u8; WORD] {
    let [a, b, c, d] = number.to_ne_bytes();
    [what, a, b, c, d]
}

fn taken([what, a, b, c, d]: [u8; WORD]) -> (u8, i32) {
    (what, i32::from_ne_bytes([a, b, c, d]))
}

/// Sends a text.
pub(super) fn send(to: &mut impl Write, text: &[u8]) -> io::Result<()> {
    to.write_all(&(text.len() as u64).to_ne_bytes())?;
    to.write_all(text)
}

/// Receives a text as a whole: one that was cut short is an error.
pub(super) fn receive(from: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut length = [0; size_of::<u64>()];
    from.read_exact(&mut length)?;
    let length = u64::from_ne_bytes(length);
    let mut text = Vec::new();
    from.take(length.min(MOST)).read_to_end(&mut text)?;
    if text.len() as u64 == length { Ok(text) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// Sends a result, an error by its words.
pub(super) fn send_result(to: &mut impl Write, result: io::Result<impl Into<Vec<u8>>>) -> io::Result<()> {
    let (mark, text) = match result {
        Ok(text) => (0_u8, text.into()),
        Err(error) => (1, error.to_string().into_bytes()),
    };
    to.write_all(&[mark])?;
    send(to, &text)
}

/// Receives a result.
pub(super) fn receive_result(from: &mut impl Read) -> io::Result<io::Result<Vec<u8>>> {
    let mut mark = [0];
    from.read_exact(&mut mark)?;
    let text = receive(from)?;
    Ok(if mark == [0] { Ok(text) } else { Err(io::Error::other(String::from_utf8_lossy(&text))) })
}

/// Sends a descriptor, or the word that there is none.
pub(super) fn send_descriptor(to: &UnixStream, descriptor: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut beside = SendAncillaryBuffer::new(&mut space);
    let descriptors: Vec<_> = descriptor.into_iter().collect();
    if !descriptors.is_empty() {
        beside.push(SendAncillaryMessage::ScmRights(&descriptors));
    }
    sendmsg(to, &[IoSlice::new(&[0])], &mut beside, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Receives a descriptor, or the word that there is none.
pub(super) fn receive_descriptor(from: &UnixStream) -> io::Result<Option<OwnedFd>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut beside = RecvAncillaryBuffer::new(&mut space);
    let mut word = [0];
    let received = recvmsg(from, &mut [IoSliceMut::new(&mut word)], &mut beside, RecvFlags::CMSG_CLOEXEC)?;
    if received.bytes == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    for message in beside.drain() {
        if let RecvAncillaryMessage::ScmRights(mut descriptors) = message {
            return Ok(descriptors.next());
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;
    use std::os::unix::net::UnixStream;

    use super::{Answer, Order, receive, receive_result, send, send_result};
    use super::{receive_descriptor, send_descriptor};

    #[test]
    fn what_is_told_is_understood() {
        for order in [Order::Start, Order::Stop(15), Order::Kill, Order::Leave, Order::Read] {
            assert_eq!(Order::decode(order.encode()), Some(order));
        }
        for answer in [Answer::Started, Answer::Refused(2), Answer::Ended(-1)] {
            assert_eq!(Answer::decode(answer.encode()), Some(answer));
        }
        assert_eq!((Order::decode([0; 5]), Answer::decode([9; 5])), (None, None));
    }

    #[test]
    fn a_descriptor_goes_over_or_there_is_none() {
        let (one, other) = UnixStream::pair().expect("a pair");
        let (mine, passed) = UnixStream::pair().expect("a pair");
        send_descriptor(&one, Some(passed.as_fd())).expect("there is room");
        drop(passed);
        let received = receive_descriptor(&other).expect("it came").expect("with a descriptor");
        send(&mut UnixStream::from(received), b"hello").expect("it is the other end");
        assert_eq!(receive(&mut &mine).expect("it is whole"), b"hello");
        send_descriptor(&one, None).expect("there is room");
        assert!(receive_descriptor(&other).expect("it came").is_none());
        drop(one);
        assert!(receive_descriptor(&other).is_err());
    }

    #[test]
    fn a_text_is_received_as_a_whole_or_not_at_all() {
        let mut sent = Vec::new();
        send(&mut sent, b"report").expect("memory takes all");
        assert_eq!(receive(&mut &sent[..]).expect("it is whole"), b"report");
        for cut in 0..sent.len() {
            assert!(receive(&mut &sent[..cut]).is_err(), "cut at {cut}");
        }
        let mut sent = Vec::new();
        let full: std::io::Result<String> = Err(std::io::Error::other("full"));
        send_result(&mut sent, full).expect("memory takes all");
        let received = receive_result(&mut &sent[..]).expect("it is whole");
        assert_eq!(received.expect_err("it is an error").to_string(), "full");
    }
}
