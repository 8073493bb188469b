//! Which attempt of one account is which of the other.
//!
//! Sequence numbers pass address translation, so J and K name an attempt at any place. Of a million attempts
//! some have the same J by chance, or because who forged them took one number for all: K, the ends and the
//! time tell these apart. Each pass joins by a key, two sorted lists at a time.

use std::collections::{BTreeMap, BTreeSet};

use crate::attempt::{Attempt, End};

/// A first SYN that was lost between is repeated for about this long.
const REACH_NS: i64 = 130 * 1_000_000_000;
/// Of a first SYN that was not lost, both accounts know to this.
const SOON_NS: i64 = 500_000_000;
/// Responders that are told apart by their translations; of the others the time tells alone.
const MOST_RESPONDERS: usize = 1 << 16;
/// What answers in the responder's place passes the SYN on within this. Of a million attempts hundreds have the same J
/// by chance in a longer time.
const PASSED_ON_NS: i64 = 10 * 1_000_000_000;
/// Differences of two clocks that agree are within this, where they are most.
const DENSE_NS: u64 = 2 * 1_000_000_000;
/// How far a pass looks ahead among attempts of one key.
const AHEAD: usize = 16;

/// By what two attempts are one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Link {
    /// J, and K where both accounts have it.
    Numbers,
    /// K and the ends; J was rewritten on the way.
    OneNumber,
    /// J and another K: something between answered in the responder's place.
    OtherK,
    /// The ends and the time alone; both numbers differ, or K is not known.
    Ends,
}

/// Two attempts that are one, by their places in their accounts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pair {
    pub(crate) places: [u32; 2],
    pub(crate) link: Link,
}

/// The pairs of two accounts.
pub(crate) struct Matching<'a> {
    accounts: [&'a [Attempt]; 2],
    is_used: [Vec<bool>; 2],
    pub(crate) pairs: Vec<Pair>,
    /// How far the second account's clock is ahead, roughly, ns.
    pub(crate) ahead_ns: Option<i64>,
}

/// By how much a time of the second account is later than one of the first, ns.
pub(crate) fn later(first: u64, second: u64) -> i64 {
    second.cast_signed().wrapping_sub(first.cast_signed())
}

type Ends = (End, End);

fn ends(attempt: &Attempt) -> Ends {
    (attempt.initiator, attempt.responder)
}

impl<'a> Matching<'a> {
    pub(crate) fn of(accounts: [&'a [Attempt]; 2]) -> Self {
        let is_used = accounts.map(|account| vec![false; account.len()]);
        let mut matching = Self { accounts, is_used, pairs: Vec::new(), ahead_ns: None };
        matching.by_numbers();
        matching.by_ends();
        matching
    }

    fn by_numbers(&mut self) {
        let any = |_: &Attempt, _: &Attempt| true;
        self.join(|attempt| Some((attempt.j, attempt.k()?)), None, any, Link::Numbers);
        self.ahead_ns = self.median();
        let may_be = |first: &Attempt, second: &Attempt| first.shares_k(second) != Some(false);
        // 32 bits and five of the same: whatever the clocks say.
        self.join(|attempt| Some((attempt.j, ends(attempt))), None, may_be, Link::Numbers);
        if self.ahead_ns.is_none() {
            self.ahead_ns = self.median().or_else(|| self.densest(|attempt| attempt.j));
        }
        let Some(ahead) = self.ahead_ns else { return };
        // Some have the same J by chance: the responder and the time tell these apart, before one takes another's.
        let translated = self.translated(ahead);
        let is_one_service = |first: &Attempt, second: &Attempt| {
            let responders = (first.responder, second.responder);
            may_be(first, second) && (responders.0 == responders.1 || translated.contains(&responders))
        };
        for reach in [SOON_NS, REACH_NS] {
            self.join(|attempt| Some(attempt.j), Some((ahead, reach)), is_one_service, Link::Numbers);
        }
        for reach in [SOON_NS, REACH_NS] {
            self.join(|attempt| Some(attempt.j), Some((ahead, reach)), may_be, Link::Numbers);
        }
        self.join(|attempt| Some(attempt.j), Some((ahead, PASSED_ON_NS)), any, Link::OtherK);
    }

    fn by_ends(&mut self) {
        let any = |_: &Attempt, _: &Attempt| true;
        self.join(|attempt| Some((attempt.k()?, ends(attempt))), None, any, Link::OneNumber);
        if self.ahead_ns.is_none() {
            self.ahead_ns = self.median().or_else(|| self.densest(ends));
        }
        let Some(ahead) = self.ahead_ns else { return };
        let is_answered = |first: &Attempt, second: &Attempt| first.is_answered() || second.is_answered();
        self.join(|attempt| Some(ends(attempt)), Some((ahead, REACH_NS)), is_answered, Link::Ends);
    }

    /// Whether an attempt of an account is in no pair.
    pub(crate) fn is_alone(&self, account: usize, place: usize) -> bool {
        !self.is_used[account][place]
    }

    /// The places of the attempts that are in no pair and have a key, in its order and that of time.
    fn left<K: Ord>(&self, account: usize, key: &impl Fn(&Attempt) -> Option<K>) -> Vec<u32> {
        let attempts = self.accounts[account];
        let all = attempts.iter().zip(&self.is_used[account]).zip(0..);
        let has_key = |attempt: &Attempt| key(attempt).is_some();
        let mut left: Vec<u32> =
            all.filter(|((attempt, used), _)| !**used && has_key(attempt)).map(|(_, place)| place).collect();
        left.sort_unstable_by_key(|place| {
            let attempt = &attempts[*place as usize];
            (key(attempt), attempt.started_ns)
        });
        left
    }

    /// Joins those that have a key in common and fit; where it is known how far the second clock is ahead,
    /// only those that began at one time, to so much.
    fn join<K: Ord>(
        &mut self,
        key: impl Fn(&Attempt) -> Option<K>,
        within: Option<(i64, i64)>,
        fits: impl Fn(&Attempt, &Attempt) -> bool,
        link: Link,
    ) {
        let [first, second] = [0, 1].map(|account| self.left(account, &key));
        let [of_first, of_second] = self.accounts;
        let mut found = Vec::new();
        let mut begin = 0;
        let reach = within.map_or(0, |(_, reach)| reach);
        for group in first.chunk_by(|a, b| key(&of_first[*a as usize]) == key(&of_first[*b as usize])) {
            let wanted = key(&of_first[group[0] as usize]);
            let of_others = |place: &&u32| key(&of_second[**place as usize]);
            begin += second[begin..].iter().take_while(|place| of_others(place) < wanted).count();
            let same = second[begin..].iter().take_while(|place| of_others(place) == wanted).count();
            let others = &second[begin..begin + same];
            let (mut from, mut taken) = (0, vec![false; others.len()]);
            for place in group {
                let attempt = &of_first[*place as usize];
                let apart = |other: u32| {
                    let apart = later(attempt.started_ns, of_second[other as usize].started_ns);
                    within.map_or(0, |(ahead, _)| apart.saturating_sub(ahead))
                };
                while from < others.len() && (taken[from] || apart(others[from]) < -reach) {
                    from += 1;
                }
                let near = (from..others.len().min(from + AHEAD))
                    .take_while(|at| apart(others[*at]) <= reach)
                    .find(|at| !taken[*at] && fits(attempt, &of_second[others[*at] as usize]));
                if let Some(at) = near {
                    taken[at] = true;
                    found.push([*place, others[at]]);
                }
            }
        }
        for places in found {
            self.is_used[0][places[0] as usize] = true;
            self.is_used[1][places[1] as usize] = true;
            self.pairs.push(Pair { places, link });
        }
    }

    /// The median of how much later the second account's first SYNs are.
    fn median(&self) -> Option<i64> {
        let mut apart: Vec<i64> = self.pairs.iter().map(|pair| self.apart(pair.places)).collect();
        let middle = apart.len() / 2;
        (!apart.is_empty()).then(|| *apart.select_nth_unstable(middle).1)
    }

    fn apart(&self, [first, second]: [u32; 2]) -> i64 {
        later(self.accounts[0][first as usize].started_ns, self.accounts[1][second as usize].started_ns)
    }

    /// How far the second clock is ahead by most of those that a key names once in each account. By chance
    /// their differences would be anywhere.
    fn densest<K: Ord>(&self, key: impl Fn(&Attempt) -> K) -> Option<i64> {
        let mut apart: Vec<i64> = self.named_once(key).into_iter().map(|places| self.apart(places)).collect();
        apart.sort_unstable();
        let window = |at: usize| {
            let end = apart[at].saturating_add(DENSE_NS.cast_signed());
            apart[at..].partition_point(|each| *each <= end)
        };
        let most = (0..apart.len()).max_by_key(|at| window(*at))?;
        let count = window(most);
        (2 * count >= apart.len()).then(|| apart[most + count / 2])
    }

    /// Those that are in no pair and that a key names once in each account.
    fn named_once<K: Ord>(&self, key: impl Fn(&Attempt) -> K) -> Vec<[u32; 2]> {
        let [first, second] = [0, 1].map(|account| {
            let attempts = self.accounts[account];
            let left = self.left(account, &|attempt| Some(key(attempt)));
            let groups = left.chunk_by(|a, b| key(&attempts[*a as usize]) == key(&attempts[*b as usize]));
            groups.filter(|group| group.len() == 1).map(|group| group[0]).collect::<Vec<_>>()
        });
        let key_of = |account: usize, place: u32| key(&self.accounts[account][place as usize]);
        let mut once = Vec::new();
        let mut others = second.iter().copied().peekable();
        for place in first {
            let wanted = key_of(0, place);
            while others.next_if(|other| key_of(1, *other) < wanted).is_some() {}
            if let Some(other) = others.next_if(|other| key_of(1, *other) == wanted) {
                once.push([place, other]);
            }
        }
        once
    }

    /// Which responders of the first account are which of the second: those of pairs, and those that two attempts
    /// say at least whose J is named once.
    fn translated(&self, ahead_ns: i64) -> BTreeSet<(End, End)> {
        let mut counts: BTreeMap<(End, End), u32> = BTreeMap::new();
        let pairs = self.pairs.iter().map(|pair| (pair.places, 2));
        let is_near = |places: &[u32; 2]| self.apart(*places).saturating_sub(ahead_ns).abs() <= SOON_NS;
        let once = self.named_once(|attempt| attempt.j).into_iter().filter(is_near).map(|places| (places, 1));
        for ([first, second], weight) in pairs.chain(once) {
            let [first, second] = [self.accounts[0][first as usize], self.accounts[1][second as usize]];
            let responders = (first.responder, second.responder);
            if counts.len() < MOST_RESPONDERS || counts.contains_key(&responders) {
                *counts.entry(responders).or_default() += weight;
            }
        }
        counts.into_iter().filter(|(_, count)| *count >= 2).map(|(responders, _)| responders).collect()
    }
}
