//! The row of a service, and changes of the books in balanced pairs, in the totals and in the row.

use super::{Lookup, Platform};
use crate::abi::{Counter, SERVICES};
use crate::books::{Claim, ServiceKey};
use crate::low_half;
use crate::record::State;
use crate::wire::{self, Packet};

/// Rows of the service table that are looked at for one service.
const SERVICE_PROBES: u32 = 8;
/// Rows of each half of the service table.
const SERVICE_HALF: u32 = SERVICES / 2;

/// The row of the service that a packet is sent to; the row `other` if none of the rows it may have is free.
#[inline(always)]
pub fn service_row<P: Platform>(platform: &P, packet: &Packet) -> u32 {
    let key = ServiceKey::new(packet.destination, packet.destination_port, packet.protocol, packet.family);
    let half = if packet.protocol == wire::UDP { SERVICE_HALF } else { 0 };
    let start = key.mix(&platform.config().factors[0]);
    let mut i = 0;
    while i < SERVICE_PROBES {
        let row = half + (start.wrapping_add(i) & (SERVICE_HALF - 1)).max(1);
        if let Some(service) = platform.service(row) {
            match service.claim(&key) {
                Claim::Ours => return row,
                Claim::Unsettled => return half,
                Claim::Foreign => {}
            }
        }
        i += 1;
    }
    half
}

impl<P: Platform> Lookup<'_, P> {
    /// Counts a new attempt or UDP flow in the books and in its service's row, whose number it returns.
    #[inline(always)]
    pub(super) fn enter(&self, total: Counter, state: State) -> u16 {
        let (total, gauge) = (total as usize, state.gauge_place());
        self.platform.books().enter(total, gauge);
        let row = service_row(self.platform, self.packet) & (SERVICES - 1);
        if let Some(service) = self.platform.service(row) {
            service.bump(total, 1);
            service.bump(gauge, 1);
        }
        (row & 0xffff) as u16
    }

    /// Moves an attempt or flow from one gauge to another, in the books and in its service's row.
    #[inline(always)]
    pub(super) fn transfer(&self, row: u16, from: usize, to: usize) {
        let (from, to) = (self.veiled_place(from), self.veiled_place(to));
        self.platform.books().transfer(from, to);
        if let Some(service) = self.platform.service(row as u32) {
            service.bump(from, u64::MAX);
            service.bump(to, 1);
        }
    }

    /// A place in a counter block behind the veil: the verifier checks the change of the books once, not once
    /// per verdict.
    #[inline(always)]
    fn veiled_place(&self, place: usize) -> usize {
        low_half(self.veil(place as u64)) as usize
    }
}
