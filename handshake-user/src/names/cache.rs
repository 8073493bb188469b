//! The names of addresses that were asked for, each for its time, and the addresses to ask for. Both are bounded:
//! a flood of addresses costs the rest their names and no memory. Pure.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Most addresses that are remembered.
const MOST: usize = 4_096;
/// Most addresses that wait to be asked for. A further one is asked for when it is drawn again.
const MOST_ASKED: usize = 256;
/// How long a name, or that there is none, is kept at least and at most, whatever the server says.
const SHORTEST: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_secs(3_600);

/// The addresses with what is known of them.
#[derive(Debug, Default)]
pub(super) struct Cache {
    known: HashMap<IpAddr, Entry>,
    /// Those to ask for, the oldest first.
    asked: VecDeque<IpAddr>,
    /// Those to ask for, and those that are asked for now.
    waiting: usize,
}

#[derive(Debug)]
struct Entry {
    /// The name; `None` where there is none, or none yet.
    name: Option<Arc<str>>,
    /// Until when that holds; `None` while it is asked for.
    until: Option<Instant>,
}

/// What is known of an address.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// Its name, or that nothing new is to be had now.
    Settled(Option<Arc<str>>),
    /// It has just been put among those to ask for; the name that it had is still shown.
    Asked(Option<Arc<str>>),
}

impl Cache {
    /// What is known. What is not, or is too old, is asked for as far as there is room.
    pub(super) fn look_up(&mut self, address: IpAddr, now: Instant) -> Known {
        let has_room = self.asked.len() < MOST_ASKED;
        if let Some(entry) = self.known.get_mut(&address) {
            let is_old = entry.until.is_some_and(|until| until <= now);
            if !is_old || !has_room {
                return Known::Settled(entry.name.clone());
            }
            entry.until = None;
            self.waiting += 1;
            self.asked.push_back(address);
            return Known::Asked(entry.name.clone());
        }
        if !has_room || !self.make_room(now) {
            return Known::Settled(None);
        }
        self.known.insert(address, Entry { name: None, until: None });
        self.waiting += 1;
        self.asked.push_back(address);
        Known::Asked(None)
    }

    /// The next address to ask for.
    pub(super) fn next(&mut self) -> Option<IpAddr> {
        self.asked.pop_front()
    }

    /// Whether an address is to be asked for, or is asked for now.
    pub(super) const fn is_waiting(&self) -> bool {
        self.waiting > 0
    }

    /// Takes an answer, and returns whether the name of the address is another now.
    pub(super) fn learn(
        &mut self,
        address: IpAddr,
        name: Option<Arc<str>>,
        lasts: Duration,
        now: Instant,
    ) -> bool {
        let Some(entry) = self.known.get_mut(&address).filter(|entry| entry.until.is_none()) else {
            return false;
        };
        self.waiting -= 1;
        entry.until = Some(now + lasts.clamp(SHORTEST, LONGEST));
        let is_other = entry.name != name;
        entry.name = name;
        is_other
    }

    /// Makes room for one more: what is too old goes first, then the quarter that holds the shortest. What is asked
    /// for stays.
    fn make_room(&mut self, now: Instant) -> bool {
        if self.known.len() < MOST {
            return true;
        }
        self.known.retain(|_, entry| entry.until.is_none_or(|until| now < until));
        if self.known.len() > MOST - MOST / 4 {
            let mut until: Vec<Instant> = self.known.values().filter_map(|entry| entry.until).collect();
            until.sort_unstable();
            if let Some(&last) = until.get(until.len().saturating_sub(1).min(MOST / 4)) {
                self.known.retain(|_, entry| entry.until.is_none_or(|until| last < until));
            }
        }
        self.known.len() < MOST
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn address(number: usize) -> IpAddr {
        let number = u32::try_from(number).expect("small");
        IpAddr::V4((0x0a00_0000 + number).into())
    }

    #[test]
    fn an_address_is_asked_for_once_in_its_time() {
        let (mut cache, now) = (Cache::default(), Instant::now());
        let (one, name) = (address(1), Some(Arc::from("one.example")));
        assert_eq!(cache.look_up(one, now), Known::Asked(None));
        assert_eq!(cache.look_up(one, now), Known::Settled(None));
        assert_eq!((cache.next(), cache.next()), (Some(one), None));
        assert!(cache.is_waiting());
        assert!(cache.learn(one, name.clone(), MINUTE, now));
        assert!(!cache.is_waiting());
        assert!(!cache.learn(one, None, MINUTE, now), "it was not asked for");
        assert_eq!(cache.look_up(one, now + MINUTE / 2), Known::Settled(name.clone()));
        // Too old: it is asked for again, and shown meanwhile.
        assert_eq!(cache.look_up(one, now + MINUTE), Known::Asked(name.clone()));
        assert_eq!(cache.look_up(one, now + MINUTE), Known::Settled(name.clone()));
        assert!(!cache.learn(one, name, MINUTE, now + MINUTE), "it is the same");
    }

    #[test]
    fn that_there_is_no_name_is_kept_too() {
        let (mut cache, now) = (Cache::default(), Instant::now());
        cache.look_up(address(1), now);
        assert!(!cache.learn(address(1), None, Duration::ZERO, now));
        // A server may say 0 s or a year.
        assert_eq!(cache.look_up(address(1), now + SHORTEST / 2), Known::Settled(None));
        assert_eq!(cache.look_up(address(1), now + SHORTEST), Known::Asked(None));
        cache.learn(address(1), None, 10_000 * MINUTE, now);
        assert_eq!(cache.look_up(address(1), now + LONGEST), Known::Asked(None));
    }

    #[test]
    fn a_flood_of_addresses_is_bounded() {
        let (mut cache, now) = (Cache::default(), Instant::now());
        for number in 0..100_000 {
            cache.look_up(address(number), now);
        }
        assert_eq!((cache.asked.len(), cache.known.len()), (MOST_ASKED, MOST_ASKED));
        let mut number = 0;
        let mut later = now;
        for _ in 0..100 {
            while let Some(next) = cache.next() {
                later += Duration::from_millis(20);
                cache.learn(next, Some(Arc::from("name")), MINUTE * 10, later);
            }
            for _ in 0..2 * MOST_ASKED {
                number += 1;
                cache.look_up(address(number), later);
            }
            assert!(cache.known.len() <= MOST, "{}", cache.known.len());
        }
        assert!(cache.known.len() > MOST / 2, "{}", cache.known.len());
        // What was learned last is still there.
        while let Some(next) = cache.next() {
            cache.learn(next, Some(Arc::from("last")), MINUTE * 10, later);
            assert_eq!(cache.look_up(next, later), Known::Settled(Some(Arc::from("last"))));
        }
        assert!(!cache.is_waiting());
    }
}
