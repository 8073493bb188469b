//! Attempts of one account that something between answered, paired with those that it began behind.
//!
//! A proxy has a J of its own behind and a K of its own before, and other ends. Nothing but time ties the two
//! connections, so a tie is claimed of a whole service alone: where the connections behind follow its
//! clients' one by one.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::attempt::{Attempt, End};
use crate::matching::later;

/// A proxy connects within this after its client's handshake, ns.
const SOON_NS: i64 = 1_000_000_000;
/// How much sooner than the client's SYN the one behind may seem to be, because the clocks are not the same,
/// ns.
const EARLY_NS: i64 = 50_000_000;
/// The delays between the two connections are alike to this, ns, but for the shortest and the longest
/// quarter.
const ALIKE_NS: i64 = 20_000_000;
/// The fewest that show a tie, where no address does.
const FEWEST: usize = 8;

/// Attempts of an account, and the places of some of them, by time.
#[derive(Clone, Copy)]
pub(crate) struct Chosen<'a> {
    pub(crate) attempts: &'a [Attempt],
    pub(crate) places: &'a [u32],
}

impl Chosen<'_> {
    fn at(&self, place: usize) -> &Attempt {
        &self.attempts[self.places[place] as usize]
    }

    /// The places by a key, each list by time.
    fn groups<K: Ord>(&self, key: impl Fn(&Attempt) -> K) -> BTreeMap<K, Vec<u32>> {
        let mut groups: BTreeMap<K, Vec<u32>> = BTreeMap::new();
        for place in self.places {
            groups.entry(key(&self.attempts[*place as usize])).or_default().push(*place);
        }
        groups
    }
}

/// The pairs of what was answered near the initiators and what began behind, by their places in the near and
/// in the far account. `ahead_ns` is how far the far clock is ahead.
pub(crate) fn pairs(near: Chosen<'_>, far: Chosen<'_>, ahead_ns: i64) -> Vec<[u32; 2]> {
    let fronts = near.groups(|attempt| attempt.responder);
    let mut backs: BTreeMap<(IpAddr, End), Vec<u32>> =
        far.groups(|attempt| (attempt.initiator.address(), attempt.responder));
    let mut all = Vec::new();
    for (service, mut front) in fronts {
        for ((from, _), back) in &mut backs {
            let before = Chosen { attempts: near.attempts, places: &front };
            let behind = Chosen { attempts: far.attempts, places: back };
            let found = in_order(before, behind, ahead_ns);
            let is_tied =
                *from == service.address() || (found.len() >= FEWEST && are_alike(before, behind, &found));
            if !is_tied || 10 * found.len() < 9 * front.len().min(back.len()) || found.is_empty() {
                continue;
            }
            all.extend(found.iter().map(|[a, b]| [front[*a], back[*b]]));
            let [of_front, of_back] =
                [0, 1].map(|side| found.iter().map(|pair| pair[side]).collect::<Vec<_>>());
            (front, *back) = (without(&front, &of_front), without(back, &of_back));
        }
    }
    all
}

/// Those whose index is not in a sorted list.
fn without(places: &[u32], taken: &[usize]) -> Vec<u32> {
    let is_left = |index: &usize| taken.binary_search(index).is_err();
    places.iter().enumerate().filter(|(index, _)| is_left(index)).map(|(_, place)| *place).collect()
}

/// Those that follow each other in time, by their indices.
fn in_order(before: Chosen<'_>, behind: Chosen<'_>, ahead_ns: i64) -> Vec<[usize; 2]> {
    let (mut a, mut b, mut found) = (0, 0, Vec::new());
    while a < before.places.len() && b < behind.places.len() {
        let client = before.at(a);
        let connect = client.connect_ns().unwrap_or(0).cast_signed();
        let apart = later(client.started_ns, behind.at(b).started_ns).saturating_sub(ahead_ns);
        if apart < -EARLY_NS {
            b += 1;
        } else if apart > SOON_NS.saturating_add(connect) {
            a += 1;
        } else {
            found.push([a, b]);
            (a, b) = (a + 1, b + 1);
        }
    }
    found
}

/// Whether the delays between the two connections of each pair are alike.
fn are_alike(before: Chosen<'_>, behind: Chosen<'_>, found: &[[usize; 2]]) -> bool {
    let apart = |[a, b]: &[usize; 2]| later(before.at(*a).started_ns, behind.at(*b).started_ns);
    let mut apart: Vec<i64> = found.iter().map(apart).collect();
    apart.sort_unstable();
    let quarter = apart.len() / 4;
    apart[apart.len() - 1 - quarter] - apart[quarter] <= ALIKE_NS
}
