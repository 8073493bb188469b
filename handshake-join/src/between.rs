//! Attempts of one account that something between answered, paired with those that it began behind.
//!
//! A proxy has a J of its own behind and a K of its own before, and other ends. Nothing but time ties the two
//! connections, so a tie is claimed of a whole service alone: where the connections behind follow its
//! clients' one by one.

use std::cmp::Reverse;

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
/// Comparisons for each attempt, and the fewest of all. There may be thousands of services on both sides: once so
/// much is compared, no more ties are claimed.
const WORK: usize = 64;
const LEAST_WORK: usize = 1 << 22;

/// Attempts of an account, and the places of some of them, by time.
#[derive(Clone, Copy)]
pub(crate) struct Chosen<'a> {
    pub(crate) attempts: &'a [Attempt],
    pub(crate) places: &'a [u32],
}

/// Attempts of one service, or those that one host begins there: their places, by time.
struct Group {
    /// The address that a proxy has on both of its sides.
    host: End,
    places: Vec<u32>,
}

impl Chosen<'_> {
    fn at(&self, place: usize) -> &Attempt {
        &self.attempts[self.places[place] as usize]
    }

    /// The hosts of all, each once.
    fn hosts(&self, host: impl Fn(&Attempt) -> End) -> Vec<End> {
        let mut hosts: Vec<End> =
            self.places.iter().map(|place| host(&self.attempts[*place as usize])).collect();
        hosts.sort_unstable();
        hosts.dedup();
        hosts
    }

    /// The groups that a key makes, the largest first: those that are large enough to show a tie, or whose host is
    /// one of the other side's.
    fn groups<K: Ord>(
        &self,
        key: impl Fn(&Attempt) -> K,
        host: impl Fn(&Attempt) -> End,
        others: &[End],
    ) -> Vec<Group> {
        let of = |place: &u32| &self.attempts[*place as usize];
        let mut places = self.places.to_vec();
        // Those of a key stay in the order of time.
        places.sort_by_key(|place| key(of(place)));
        let chunks = places.chunk_by(|a, b| key(of(a)) == key(of(b)));
        let groups = chunks.map(|places| (host(of(&places[0])), places));
        let is_of_use =
            |(host, places): &(End, &[u32])| places.len() >= FEWEST || others.binary_search(host).is_ok();
        let mut groups: Vec<Group> =
            groups.filter(is_of_use).map(|(host, places)| Group { host, places: places.to_vec() }).collect();
        groups.sort_by_key(|group| Reverse(group.places.len()));
        groups
    }
}

/// The pairs of what was answered near the initiators and what began behind, by their places in the near and
/// in the far account. `ahead_ns` is how far the far clock is ahead.
pub(crate) fn pairs(near: Chosen<'_>, far: Chosen<'_>, ahead_ns: i64) -> Vec<[u32; 2]> {
    let (of_service, of_proxy) =
        (|attempt: &Attempt| attempt.responder.host(), |attempt: &Attempt| attempt.initiator.host());
    let (services, proxies) = (near.hosts(of_service), far.hosts(of_proxy));
    let mut fronts = near.groups(|attempt| attempt.responder, of_service, &proxies);
    let mut backs = far.groups(|attempt| (of_proxy(attempt), attempt.responder), of_proxy, &services);
    let mut comparing = Comparing {
        attempts: [near.attempts, far.attempts],
        ahead_ns,
        work: LEAST_WORK.max(WORK * (near.places.len() + far.places.len())),
        found: Vec::new(),
    };
    // Where an address shows the tie, it goes before one that time alone shows.
    let mut by_host: Vec<usize> = (0..backs.len()).collect();
    by_host.sort_by_key(|back| backs[*back].host);
    for front in &mut fronts {
        let begin = by_host.partition_point(|back| backs[*back].host < front.host);
        for back in &by_host[begin..] {
            let back = &mut backs[*back];
            if back.host != front.host || comparing.work == 0 {
                break;
            }
            comparing.tie(front, back);
        }
    }
    for front in &mut fronts {
        for back in &mut backs {
            if comparing.work == 0 {
                break;
            }
            comparing.tie(front, back);
        }
    }
    comparing.found
}

/// What is compared, and how much more may be.
struct Comparing<'a> {
    attempts: [&'a [Attempt]; 2],
    ahead_ns: i64,
    work: usize,
    found: Vec<[u32; 2]>,
}

impl Comparing<'_> {
    /// Takes the pairs of a service and of what is behind it out of both, if they are tied.
    fn tie(&mut self, front: &mut Group, back: &mut Group) {
        let fewer = front.places.len().min(back.places.len());
        let is_by_address = front.host == back.host;
        self.work = self.work.saturating_sub(1);
        if fewer < if is_by_address { 1 } else { FEWEST } {
            return;
        }
        let [near, far] = self.attempts;
        let before = Chosen { attempts: near, places: &front.places };
        let behind = Chosen { attempts: far, places: &back.places };
        let found = in_order(before, behind, self.ahead_ns, &mut self.work);
        let is_alike = || spread(before, behind, &found) <= ALIKE_NS;
        let is_tied = is_by_address || (found.len() >= FEWEST && is_alike());
        if !is_tied || found.len() < most_of(fewer) {
            return;
        }
        self.found.extend(found.iter().map(|[a, b]| [front.places[*a], back.places[*b]]));
        for (group, side) in [(front, 0), (back, 1)] {
            let taken: Vec<usize> = found.iter().map(|pair| pair[side]).collect();
            group.places = without(&group.places, &taken);
        }
    }
}

/// Nine in ten, and one at least.
const fn most_of(count: usize) -> usize {
    (9 * count).div_ceil(10)
}

/// Those whose index is not in a sorted list.
fn without(places: &[u32], taken: &[usize]) -> Vec<u32> {
    let is_left = |index: &usize| taken.binary_search(index).is_err();
    places.iter().enumerate().filter(|(index, _)| is_left(index)).map(|(_, place)| *place).collect()
}

/// Those that follow each other in time, by their indices; fewer than most of them where these cannot be found, or
/// where it is too much work.
fn in_order(before: Chosen<'_>, behind: Chosen<'_>, ahead_ns: i64, work: &mut usize) -> Vec<[usize; 2]> {
    let (mut a, mut b, mut found) = (0, 0, Vec::new());
    let counts = [before.places.len(), behind.places.len()];
    let most = most_of(counts[0].min(counts[1]));
    // No more than these can be passed over.
    let spare = counts.map(|count| count - most);
    while a < counts[0] && b < counts[1] && *work != 0 {
        *work -= 1;
        if a - found.len() > spare[0] || b - found.len() > spare[1] {
            break;
        }
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

/// By how much the delays between the two connections of each pair differ, but for the shortest and the longest
/// quarter, ns.
fn spread(before: Chosen<'_>, behind: Chosen<'_>, found: &[[usize; 2]]) -> i64 {
    let apart = |[a, b]: &[usize; 2]| later(before.at(*a).started_ns, behind.at(*b).started_ns);
    let mut apart: Vec<i64> = found.iter().map(apart).collect();
    apart.sort_unstable();
    let quarter = apart.len() / 4;
    apart[apart.len() - 1 - quarter] - apart[quarter]
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::{Chosen, FEWEST, LEAST_WORK, pairs};
    use crate::attempt::{Attempt, End};

    const SECOND: u64 = 1_000_000_000;
    /// Services of each side that have nothing to do with each other. They are more than can be compared.
    const STRANGERS: u32 = 2_200;

    fn end(host: u32, port: u16) -> End {
        End::of(IpAddr::V4(Ipv4Addr::from(host)), port)
    }

    /// Times that follow no others.
    fn scattered(seed: u32) -> impl Iterator<Item = u64> {
        let mut state = u64::from(seed) << 16 | 1;
        std::iter::repeat_with(move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 20) % (3_600 * SECOND)
        })
    }

    /// Of so many at each of these services, from these hosts.
    fn attempts(
        services: impl Iterator<Item = (u32, u32)>,
        times: impl Fn(u32) -> Vec<u64>,
    ) -> impl Iterator<Item = Attempt> {
        services.flat_map(move |(host, service)| {
            let ends = [end(host, 40_000), end(service, 443)];
            times(service).into_iter().map(move |ns| Attempt::begun(ends, 1, ns))
        })
    }

    /// Where there are too many services to compare each with each, those whose address shows the tie are found, and
    /// so are the busiest.
    #[test]
    fn thousands_of_services_do_not_hide_the_busiest() {
        assert!((STRANGERS as usize).pow(2) > LEAST_WORK);
        let strange = |service: u32| scattered(service).take(FEWEST).collect::<Vec<_>>();
        let regular = |count: u64, from: u64| (0..count).map(|at| from + at * 9 * SECOND).collect::<Vec<_>>();
        let near = attempts((0..STRANGERS).map(|at| (1, 10_000 + at)), strange)
            .chain(attempts([(1, 2)].into_iter(), |_| regular(100, 0)))
            .chain(attempts([(1, 3)].into_iter(), |_| regular(2, 5_000 * SECOND)));
        let far = attempts((0..STRANGERS).map(|at| (4, 50_000 + at)), strange)
            .chain(attempts([(5, 6)].into_iter(), |_| regular(100, SECOND / 100)))
            .chain(attempts([(3, 7)].into_iter(), |_| regular(2, 5_000 * SECOND + SECOND / 2)));
        let sides: [Vec<Attempt>; 2] = [near.collect(), far.collect()].map(|mut side: Vec<Attempt>| {
            side.sort_by_key(|attempt| attempt.started_ns);
            side
        });
        let places = sides.each_ref().map(|side| (0..).take(side.len()).collect::<Vec<u32>>());
        let [near, far] = [0, 1].map(|side| Chosen { attempts: &sides[side], places: &places[side] });
        let found = pairs(near, far, 0);
        let services = found.iter().map(|[a, b]| {
            [near.at(*a as usize).responder, far.at(*b as usize).responder].map(|end| end.address())
        });
        let count = |front: u32, back: u32| {
            let wanted = [front, back].map(|host| IpAddr::V4(Ipv4Addr::from(host)));
            services.clone().filter(|services| *services == wanted).count()
        };
        assert_eq!((count(2, 6), count(3, 7), found.len()), (100, 2, 102));
    }
}
