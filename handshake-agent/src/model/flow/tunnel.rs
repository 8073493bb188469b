//! The tunnels that conversations go through. Records have no room for them, so they stand beside.

use std::collections::HashMap;
use std::net::IpAddr;

use handshake_common::flow::{Family, FlowKey, Side};
use handshake_common::wire::tunnel::{Inner, Tunnel};
use handshake_common::wire::{UDP, quote};

use super::Flow;

/// The tunnel around a conversation: that of its first packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Around {
    /// Its kind; of several one inside another, the innermost.
    pub tunnel: Tunnel,
    /// The address that sent the tunnel's packet.
    pub source: IpAddr,
    /// The address that it was sent to.
    pub destination: IpAddr,
}

/// The tunnels around the conversations of a replay.
#[derive(Debug, Default)]
pub struct Tunnels(HashMap<(Family, FlowKey), Around>);

impl Tunnels {
    /// Notes the tunnel around a packet's conversation, if that is new. An ICMP error is of another one.
    pub fn note(&mut self, inner: &Inner<'_>) {
        let packet = &inner.packet;
        let Some(family) = Family::ALL.into_iter().find(|family| *family as u8 == packet.family) else {
            return;
        };
        if packet.protocol == 0 || packet.quote != quote::NONE {
            return;
        }
        let source = (&packet.source, packet.source_port);
        let destination = (&packet.destination, packet.destination_port);
        let (key, _) = FlowKey::of(source, destination, family, packet.protocol == UDP);
        self.0.entry((family, key)).or_insert_with(|| Around {
            tunnel: inner.tunnel,
            source: inner.source.ip(inner.family),
            destination: inner.destination.ip(inner.family),
        });
    }

    /// The memory that one more may take, bytes: 0 where there is room for it.
    #[must_use]
    pub fn next_growth(&self) -> u64 {
        let size = size_of::<((Family, FlowKey), Around)>() + 1;
        let is_full = self.0.len() == self.0.capacity();
        if is_full { (4 * self.0.capacity() * size) as u64 } else { 0 }
    }

    /// The tunnel around a conversation.
    #[must_use]
    pub fn around(&self, flow: &Flow) -> Option<&Around> {
        self.0.get(&(flow.record.family, flow.record.key))
    }
}

impl Flow {
    /// The tunnel that it is, by the port that its first packet went to: what is in it was not entered.
    #[must_use]
    pub fn tunnel(&self) -> Option<Tunnel> {
        if self.record.key.udp { Tunnel::at_port(self.end(Side::Responder).port()) } else { None }
    }
}
