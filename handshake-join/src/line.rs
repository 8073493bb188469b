//! The lines that handshake writes, as far as a join reads them. What is not known here is passed over, and
//! nothing of a line is kept as text.

use std::fmt;
use std::net::IpAddr;
use std::time::UNIX_EPOCH;

use handshake_common::verdict::{Cause, Seat, Verdict};
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::attempt::{Attempt, End, Stage};

/// The type of an object.
#[derive(Deserialize)]
pub(crate) struct Kind {
    #[serde(rename = "type", default)]
    pub(crate) name: String,
}

/// How many attempts have no row.
#[derive(Deserialize)]
pub(crate) struct UnlistedLine {
    pub(crate) half_open: u64,
    pub(crate) ended: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Happened {
    HalfOpen,
    Ended,
    #[serde(other)]
    Other,
}

#[derive(Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum Protocol {
    Tcp,
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
struct EndLine {
    address: IpAddr,
    port: u16,
}

impl EndLine {
    fn end(&self) -> End {
        End::of(self.address, self.port)
    }
}

/// A flow.
#[derive(Deserialize)]
pub(crate) struct FlowLine {
    event: Option<Happened>,
    at: Option<Time>,
    protocol: Protocol,
    initiator: EndLine,
    responder: EndLine,
    verdict: Named<Verdict>,
    cause: Option<Named<Cause>>,
    seat: Option<Named<Seat>>,
    interface: Option<Hashed>,
    isn_initiator: Option<u32>,
    isn_responder: Option<u32>,
    other_isn_responder: Option<u32>,
    syn: Option<u8>,
    syn_ack: Option<u8>,
    syn_to_syn_ack_ns: Option<u64>,
    connect_ns: Option<u64>,
    started: Time,
    ended: Option<Time>,
}

impl FlowLine {
    /// The attempt that it tells of; `None` for UDP, and for what is no attempt.
    pub(crate) fn attempt(&self) -> Option<Attempt> {
        let j = self.isn_initiator.filter(|_| self.protocol == Protocol::Tcp)?;
        let ends = [self.initiator.end(), self.responder.end()];
        let (stage, was_half_open) = match self.event {
            Some(Happened::HalfOpen) => (Stage::HalfOpen, true),
            Some(Happened::Ended | Happened::Other) => (Stage::Ended, false),
            None => (Stage::Last, false),
        };
        let attempt = Attempt {
            told_ns: self.ended.as_ref().or(self.at.as_ref()).map_or(0, |time| time.0),
            ks: [self.isn_responder, self.other_isn_responder],
            syn: self.syn.unwrap_or(1),
            syn_ack: self.syn_ack.unwrap_or(0),
            verdict: self.verdict.0,
            cause: self.cause.as_ref().and_then(|cause| cause.0),
            seat: self.seat.as_ref().and_then(|seat| seat.0),
            interface: self.interface.as_ref().map_or(0, |interface| interface.0),
            stage,
            was_half_open,
            ..Attempt::begun(ends, j, self.started.0)
        };
        Some(attempt.timed(self.syn_to_syn_ack_ns, self.connect_ns))
    }
}

/// A name of which no more is asked than whether it is another's; never 0.
struct Hashed(u32);

struct HashedVisitor;

impl Visitor<'_> for HashedVisitor {
    type Value = Hashed;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, text: &str) -> Result<Hashed, E> {
        // FNV-1a.
        let mix = |hash: u32, byte: &u8| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
        Ok(Hashed(text.as_bytes().iter().fold(0x811c_9dc5, mix) | 1))
    }
}

impl<'de> Deserialize<'de> for Hashed {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_str(HashedVisitor)
    }
}

/// A time of day, ns since the Unix epoch.
pub(crate) struct Time(pub(crate) u64);

struct TimeVisitor;

impl Visitor<'_> for TimeVisitor {
    type Value = Time;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a time such as 2026-03-01T12:03:41.000000000Z")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Time, E> {
        let time = humantime::parse_rfc3339(text).map_err(E::custom)?;
        let since = time.duration_since(UNIX_EPOCH).map_err(E::custom)?;
        Ok(Time(u64::try_from(since.as_nanos()).map_err(E::custom)?))
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_str(TimeVisitor)
    }
}

/// A member of an enumeration by its name; `None` for one that is not known yet.
struct Named<T>(Option<T>);

trait HasName: Copy + 'static {
    fn all() -> &'static [Self];
    fn name(self) -> &'static str;
}

macro_rules! has_name {
    ($($of:ty)*) => {$(
        impl HasName for $of {
            fn all() -> &'static [Self] {
                &<$of>::ALL
            }

            fn name(self) -> &'static str {
                <$of>::name(self)
            }
        }
    )*};
}

has_name! { Verdict Cause Seat }

struct NamedVisitor<T>(std::marker::PhantomData<T>);

impl<T: HasName> Visitor<'_> for NamedVisitor<T> {
    type Value = Named<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, text: &str) -> Result<Named<T>, E> {
        Ok(Named(T::all().iter().copied().find(|each| each.name() == text)))
    }
}

impl<'de, T: HasName> Deserialize<'de> for Named<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_str(NamedVisitor(std::marker::PhantomData))
    }
}

/// A reason for which a report is not exact.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct ReasonLine {
    pub(crate) reason: String,
    pub(crate) count: u64,
    pub(crate) sentence: String,
}

#[derive(Deserialize)]
struct TcpLine {
    attempts: u64,
    completed: u64,
    #[serde(default)]
    entered: EnteredLine,
}

#[derive(Default, Deserialize)]
struct EnteredLine {
    #[serde(default)]
    orphan_syn_ack: u64,
}

/// A report.
#[derive(Default)]
pub(crate) struct ReportLine {
    pub(crate) is_report: bool,
    pub(crate) schema: Option<u64>,
    pub(crate) from_ns: Option<u64>,
    pub(crate) to_ns: Option<u64>,
    pub(crate) inexact: Vec<ReasonLine>,
    pub(crate) attempts: u64,
    pub(crate) completed: u64,
    pub(crate) orphans: u64,
}

/// What takes the attempts of a report's array `flows`; `Err` where there is no room for another.
pub(crate) type Sink<'a> = dyn FnMut(&FlowLine) -> Result<(), NoRoom> + 'a;

/// There is no room for another attempt.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("no room for another attempt")]
pub(crate) struct NoRoom;

/// Reads a report, whose flows are handed on one by one: there may be millions.
pub(crate) struct ReportSeed<'s>(pub(crate) &'s mut Sink<'s>);

impl<'de> DeserializeSeed<'de> for ReportSeed<'_> {
    type Value = ReportLine;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<ReportLine, D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for ReportSeed<'_> {
    type Value = ReportLine;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ReportLine, A::Error> {
        let mut report = ReportLine::default();
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "type" => report.is_report = map.next_value::<String>()? == "report",
                "schema" => report.schema = map.next_value()?,
                "from" => report.from_ns = Some(map.next_value::<Time>()?.0),
                "to" => report.to_ns = Some(map.next_value::<Time>()?.0),
                "inexact" => report.inexact = map.next_value()?,
                "tcp" => {
                    let TcpLine { attempts, completed, entered } = map.next_value()?;
                    (report.attempts, report.completed) = (attempts, completed);
                    report.orphans = entered.orphan_syn_ack;
                }
                "flows" => map.next_value_seed(FlowsSeed(&mut *self.0))?,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(report)
    }
}

struct FlowsSeed<'s, 'f>(&'s mut Sink<'f>);

impl<'de> DeserializeSeed<'de> for FlowsSeed<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for FlowsSeed<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of flows")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut flows: A) -> Result<(), A::Error> {
        while let Some(flow) = flows.next_element::<FlowLine>()? {
            (self.0)(&flow).map_err(A::Error::custom)?;
        }
        Ok(())
    }
}
