//! The little of netlink that there is no other door to: what is on a link's hooks, whatever network namespace this
//! thread is in (sysfs shows the one it was mounted in), and the kernel's own words when it refuses.
//!
//! ```text
//! message   │ length u32 │ type u16 │ flags u16 │ sequence u32 │ port u32 │ family header │ attributes… │
//! attribute │ length u16 │ type u16 │ value, padded to 4 │
//! ```

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::mem::size_of;
use std::os::fd::{AsRawFd, OwnedFd};

use libc::{
    NETLINK_CAP_ACK, NETLINK_EXT_ACK, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR,
    SOL_NETLINK, c_int,
};
use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, Protocol, RecvFlags, SocketFlags, SocketType, bind, recv, socket_with};

/// `RTMGRP_LINK`: the group that hears of interfaces.
const LINK_GROUP: u32 = 1;
/// Bytes of a message's header.
const HEADER: usize = 16;
/// Bytes of an attribute's header; also what everything is aligned to.
const ATTRIBUTE: usize = 4;
/// An acknowledgement holds the error number and the header of the message it answers.
const ACK_FIXED: usize = 4 + HEADER;
/// `NLMSGERR_ATTR_MSG`: the attribute of an acknowledgement that holds the kernel's words.
const ACK_WORDS: u16 = 1;
/// The upper two bits of an attribute's type are flags.
const TYPE_MASK: u16 = 0x3fff;
/// `NLA_F_NESTED`.
const NESTED: u16 = 1 << 15;
/// The kernel fills at most 32 KiB a read of a dump (`NLMSG_GOODSIZE` and its growth with the reader's buffer).
const READ_BYTES: usize = 64 << 10;

/// What the kernel said when it refused a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The error number, positive.
    pub errno: i32,
    /// The extended acknowledgement: why, in the kernel's words.
    pub words: Option<String>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", io::Error::from_raw_os_error(self.errno))?;
        match &self.words {
            Some(words) => write!(f, ": {words}"),
            None => Ok(()),
        }
    }
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Self { errno: error.raw_os_error().unwrap_or(libc::EIO), words: None }
    }
}

impl From<Refusal> for io::Error {
    fn from(refusal: Refusal) -> Self {
        Self::from_raw_os_error(refusal.errno)
    }
}

/// `NETLINK_ROUTE`, which is 0.
pub(crate) const ROUTE: Option<Protocol> = None;
/// `NETLINK_SOCK_DIAG`.
pub(crate) const SOCKETS: Option<Protocol> = Some(rustix::net::netlink::SOCK_DIAG);
/// `NETLINK_GENERIC`.
pub(crate) const GENERIC: Option<Protocol> = Some(rustix::net::netlink::GENERIC);

/// `NETLINK_NETFILTER`.
pub(crate) const FILTER: Option<Protocol> = Some(rustix::net::netlink::NETFILTER);

/// An answer: its type, and what follows the message header.
#[derive(Debug)]
pub(crate) struct Message {
    /// `nlmsg_type`.
    pub kind: u16,
    /// Family header and attributes.
    pub body: Vec<u8>,
}

/// A netlink socket that waits for each answer before the next question.
#[derive(Debug)]
pub(crate) struct Netlink {
    socket: File,
    sequence: u32,
}

impl Netlink {
    /// A socket of `protocol` in this thread's network namespace.
    pub(crate) fn open(protocol: Option<Protocol>) -> io::Result<Self> {
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?;
        for option in [NETLINK_EXT_ACK, NETLINK_CAP_ACK] {
            set_option(&socket, SOL_NETLINK, option, &1_i32)?;
        }
        Ok(Self { socket: File::from(socket), sequence: 0 })
    }

    /// Sends one request and collects the answers up to its acknowledgement.
    pub(crate) fn request(&mut self, kind: u16, flags: c_int, body: &[u8]) -> Result<Vec<Message>, Refusal> {
        self.exchange(kind, NLM_F_ACK | flags, body)
    }

    /// Asks for all there is of a kind.
    pub(crate) fn dump(&mut self, kind: u16, body: &[u8]) -> Result<Vec<Message>, Refusal> {
        self.exchange(kind, NLM_F_DUMP, body)
    }

    fn exchange(&mut self, kind: u16, flags: c_int, body: &[u8]) -> Result<Vec<Message>, Refusal> {
        self.sequence += 1;
        let message = encode(kind, flags | NLM_F_REQUEST, self.sequence, body)?;
        self.socket.write_all(&message)?;
        let mut answers = Vec::new();
        let mut buffer = vec![0; READ_BYTES];
        loop {
            let length = self.socket.read(&mut buffer)?;
            if length == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            if collect(&buffer[..length], self.sequence, &mut answers)? {
                return Ok(answers);
            }
        }
    }
}

/// Hears of interfaces that come, go or change. Takes no privilege.
#[derive(Debug)]
pub(crate) struct LinkNews(OwnedFd);

impl LinkNews {
    /// A socket that never blocks.
    pub(crate) fn open() -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, ROUTE)?;
        bind(&socket, &SocketAddrNetlink::new(0, LINK_GROUP))?;
        Ok(Self(socket))
    }

    /// Whether there was any since the last call. What it was is not read: where many come, some are lost.
    pub(crate) fn take(&self) -> bool {
        let mut message = [0; 64];
        let mut has_any = false;
        loop {
            match recv(&self.0, &mut message, RecvFlags::TRUNC) {
                Ok(_) | Err(Errno::NOBUFS) => has_any = true,
                Err(Errno::INTR) => {}
                Err(_) => return has_any,
            }
        }
    }

    /// A descriptor of its own to wait at.
    pub(crate) fn descriptor(&self) -> io::Result<OwnedFd> {
        self.0.try_clone()
    }
}

/// An answer as bytes, for another process.
pub(crate) fn pack(message: &Message) -> io::Result<Vec<u8>> {
    let mut bytes = encode(message.kind, 0, 0, &message.body)?;
    bytes.resize(bytes.len().next_multiple_of(ATTRIBUTE), 0);
    Ok(bytes)
}

/// The answers in such bytes, up to what is no whole one.
pub(crate) fn unpack(bytes: &[u8]) -> Vec<Message> {
    let mut answers = Vec::new();
    // An answer that says "done" was not packed.
    let _ = collect(bytes, 0, &mut answers);
    answers
}

/// A whole message.
fn encode(kind: u16, flags: c_int, sequence: u32, body: &[u8]) -> io::Result<Vec<u8>> {
    let too_big = |_| io::Error::from(io::ErrorKind::InvalidInput);
    let length = u32::try_from(HEADER + body.len()).map_err(too_big)?;
    let flags = u16::try_from(flags).map_err(too_big)?;
    let mut message = Vec::with_capacity(HEADER + body.len());
    message.extend(length.to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend(sequence.to_ne_bytes());
    message.extend(0_u32.to_ne_bytes());
    message.extend(body);
    Ok(message)
}

/// Takes the messages of one read; true when the answer is complete.
fn collect(mut bytes: &[u8], sequence: u32, answers: &mut Vec<Message>) -> Result<bool, Refusal> {
    while let (Some(length), Some(kind), Some(to)) = (u32_at(bytes, 0), u16_at(bytes, 4), u32_at(bytes, 8)) {
        let length = length as usize;
        let Some(body) = bytes.get(HEADER..length) else { break };
        if to == sequence {
            match c_int::from(kind) {
                NLMSG_ERROR | NLMSG_DONE => return acknowledged(body).map(|()| true),
                _ => answers.push(Message { kind, body: body.to_vec() }),
            }
        }
        bytes = bytes.get(length.next_multiple_of(ATTRIBUTE)..).unwrap_or_default();
    }
    Ok(false)
}

/// Error number 0, or none at the end of a dump, is the plain "done".
fn acknowledged(body: &[u8]) -> Result<(), Refusal> {
    let errno = u32_at(body, 0).map_or(0, |word| word.cast_signed().wrapping_neg());
    if errno == 0 {
        return Ok(());
    }
    let words = find(body.get(ACK_FIXED..).unwrap_or_default(), ACK_WORDS).map(text);
    Err(Refusal { errno, words })
}

/// Sets a socket option.
pub(crate) fn set_option<T>(socket: &impl AsRawFd, level: i32, option: i32, value: &T) -> io::Result<()> {
    let size = libc::socklen_t::try_from(size_of::<T>())
        .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    // SAFETY: `value` is borrowed for the call and `size` is its size; the kernel only reads it.
    let result =
        unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const *value).cast(), size) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The attributes of `bytes`, in order; what is cut short ends them.
pub(crate) fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(rest, 0)?);
        let kind = u16_at(rest, 2)? & TYPE_MASK;
        let value = rest.get(ATTRIBUTE..length)?;
        rest = rest.get(length.next_multiple_of(ATTRIBUTE)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The first attribute of a kind.
pub(crate) fn find(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(k, _)| *k == kind).map(|(_, value)| value)
}

/// A string attribute, up to its NUL.
pub(crate) fn text(value: &[u8]) -> String {
    let end = value.iter().position(|b| *b == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

/// Two bytes in the machine's order.
pub(crate) fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(offset..)?.first_chunk()?))
}

/// Four bytes in the machine's order.
pub(crate) fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(offset..)?.first_chunk()?))
}

/// Eight bytes in the machine's order.
pub(crate) fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(*bytes.get(offset..)?.first_chunk()?))
}

/// A request's family header and attributes.
#[derive(Default)]
pub(crate) struct MessageBody(Vec<u8>);

impl MessageBody {
    /// Starts with the family's own header.
    pub(crate) fn new(header: &[u8]) -> Self {
        Self(header.to_vec())
    }

    /// Adds an attribute. Values here are a few bytes; one past 64 KiB would be cut.
    pub(crate) fn with(mut self, kind: u16, value: &[u8]) -> Self {
        let length = u16::try_from(ATTRIBUTE + value.len()).unwrap_or(u16::MAX);
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(ATTRIBUTE), 0);
        self
    }

    /// Adds an attribute made of attributes.
    pub(crate) fn nest(self, kind: u16, inner: &Self) -> Self {
        self.with(kind | NESTED, &inner.0)
    }

    /// The bytes to send.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// `struct ifinfomsg` that names a link by its index, or all of them by 0.
pub(crate) fn link_header(index: u32) -> [u8; size_of::<[u32; 4]>()] {
    let mut header = [0; 16];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An acknowledgement as the kernel sends it with `NETLINK_CAP_ACK` and `NETLINK_EXT_ACK`.
    fn acknowledgement(errno: i32, words: &str) -> Vec<u8> {
        let mut fixed = (-errno).to_ne_bytes().to_vec();
        fixed.resize(ACK_FIXED, 0);
        let body = MessageBody::new(&fixed).with(ACK_WORDS, format!("{words}\0").as_bytes());
        encode(2, 0, 7, body.bytes()).expect("a short message")
    }

    #[test]
    fn a_refusal_keeps_the_kernels_words() {
        let refusal =
            collect(&acknowledgement(libc::EBUSY, "taken"), 7, &mut Vec::new()).expect_err("errno is set");
        assert_eq!(refusal, Refusal { errno: libc::EBUSY, words: Some("taken".into()) });
        assert!(refusal.to_string().ends_with(": taken"));
    }

    #[test]
    fn an_answer_to_another_question_is_left_out() {
        let mut answers = Vec::new();
        assert_eq!(collect(&acknowledgement(libc::EBUSY, "old"), 8, &mut answers), Ok(false));
        assert!(answers.is_empty());
    }

    #[test]
    fn attributes_end_where_the_bytes_do() {
        let body = MessageBody::default().with(1, b"abcde").nest(2, &MessageBody::default().with(3, &[9]));
        let whole: Vec<_> = attributes(body.bytes()).map(|(kind, _)| kind).collect();
        assert_eq!(whole, [1, 2]);
        assert_eq!(find(body.bytes(), 2).and_then(|inner| find(inner, 3)), Some(&[9][..]));
        for cut in 0..body.bytes().len() {
            assert!(attributes(&body.bytes()[..cut]).count() <= 2, "cut at {cut}");
        }
    }
}
