//! Two accounts joined: a row for each attempt, and what they come to.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use handshake_common::verdict::Cause;

use crate::account::Account;
use crate::attempt::{Attempt, End};
use crate::between::{self, Chosen};
use crate::clocks::{ClockFinding, Clocks, syn_ack_ns};
use crate::error::JoinError;
use crate::matching::{Link, Matching, Pair, later};
use crate::outcome::{Doubt, Outcome, Segment, Which, by_seat, nearer, of_both, stuck};

/// No place in an account.
const NONE: u32 = u32::MAX;
/// Translations that are told apart; the others are counted.
const MOST_TRANSLATIONS: usize = 1_000;

/// An attempt of one account or of both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    places: [u32; 2],
    /// Which account is closer to its initiator.
    pub near: Which,
    /// What became of it.
    pub outcome: Outcome,
    /// Whether a sequence number was rewritten between.
    pub is_rewritten: bool,
}

/// Times, the shortest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Times(Vec<u64>);

impl Times {
    /// How many there are.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.0.len()
    }

    /// So many of a hundred are at most this, ns.
    #[must_use]
    pub fn percentile(&self, percent: usize) -> Option<u64> {
        let rank = (self.0.len() * percent).div_ceil(100);
        self.0.get(rank.saturating_sub(1)).copied()
    }
}

/// What is another before and behind a translation, in the near account and in the far one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Translation {
    /// The initiators' address; `None` where it is the same. Their ports are left out.
    pub initiator: Option<[IpAddr; 2]>,
    /// The responder; `None` where it is the same.
    pub responder: Option<[End; 2]>,
}

impl Translation {
    fn between(near: &Attempt, far: &Attempt) -> Self {
        let initiator = [near.initiator.address(), far.initiator.address()];
        let responder = [near.responder, far.responder];
        Self {
            initiator: (initiator[0] != initiator[1]).then_some(initiator),
            responder: (responder[0] != responder[1]).then_some(responder),
        }
    }
}

/// Sums over all attempts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Attempts that both accounts have, by their numbers.
    pub matched: u64,
    /// Of these, with other ends in the other account.
    pub translated: u64,
    /// Of these, with a number that was rewritten.
    pub rewritten: u64,
    /// Attempts that one account alone has, by [`Which`].
    pub only: [u64; 2],
    /// By outcome.
    pub completed: u64,
    /// See [`Outcome::LostBetween`], by [`Segment`].
    pub lost_between: [u64; 3],
    /// See [`Outcome::LostIn`], by [`Which`].
    pub lost_in: [u64; 2],
    /// See [`Outcome::Ended`].
    pub ended: BTreeMap<&'static str, u64>,
    /// See [`Outcome::ResetBetween`].
    pub reset_between: u64,
    /// Attempts that something between answered.
    pub answered_between: u64,
    /// See [`Outcome::Undecided`], by [`Doubt`].
    pub undecided: [u64; 4],
    /// Of those that the near account alone has: their SYN may have been lost between, or need not have come
    /// there.
    pub unclear: u64,
    /// Attempts of which the first account is nearer to the initiator, and the second.
    pub nearer: [u64; 2],
}

/// Two accounts joined.
#[derive(Debug)]
pub struct Joined {
    /// Both.
    pub accounts: [Account; 2],
    /// An attempt each, by time.
    pub rows: Vec<Row>,
    /// What they come to.
    pub totals: Totals,
    /// What their times say of the clocks.
    pub clocks: Clocks,
    /// SYN and SYN+ACK from one place to the other, where the clocks allow it.
    pub one_way: [Times; 2],
    /// From the near place to the far one and back, whatever the clocks say.
    pub round_trip: Times,
    /// Which account is nearer to the initiators of most attempts.
    usual: Which,
    /// The translations, and how many attempts had each.
    translations: BTreeMap<Translation, u64>,
}

impl Joined {
    /// Joins two accounts.
    ///
    /// # Errors
    ///
    /// Both are of one place.
    pub fn of(accounts: [Account; 2]) -> Result<Self, JoinError> {
        let [first, second] = &accounts;
        let matching = Matching::of([&first.attempts, &second.attempts]);
        if is_one_place([first, second], &matching.pairs) {
            return Err(JoinError::Same(first.name.clone(), second.name.clone()));
        }
        let mut builder = Builder::new([first, second], &matching);
        builder.both();
        builder.between();
        builder.alone();
        let Builder { mut rows, clocks, usual, .. } = builder;
        rows.sort_unstable_by_key(|row| (started(&accounts, row), row.places));
        let mut joined = Self {
            accounts,
            rows,
            totals: Totals::default(),
            clocks,
            one_way: <[Times; 2]>::default(),
            round_trip: Times::default(),
            usual,
            translations: BTreeMap::new(),
        };
        joined.sum();
        Ok(joined)
    }

    /// What the accounts have of a row's attempt, by [`Which`].
    #[must_use]
    pub fn sides(&self, row: &Row) -> [Option<&Attempt>; 2] {
        sides(&self.accounts, row)
    }

    /// The same, the near account first.
    #[must_use]
    pub fn near_and_far(&self, row: &Row) -> [Option<&Attempt>; 2] {
        let [first, second] = self.sides(row);
        if row.near == Which::First { [first, second] } else { [second, first] }
    }

    /// How long the SYN and the SYN+ACK were on their way from one place to the other, where the clocks allow
    /// it, ns.
    #[must_use]
    pub fn one_way_ns(&self, row: &Row) -> [Option<u64>; 2] {
        let [Some(near), Some(far)] = self.near_and_far(row) else { return [None; 2] };
        if !matches!(self.clocks.finding(), ClockFinding::Agree(_)) || row.outcome == Outcome::AnsweredBetween
        {
            return [None; 2];
        }
        let took = |from: u64, to: u64| u64::try_from(later(from, to)).ok();
        let syn = (near.syn == 1 && far.syn == 1).then(|| took(near.started_ns, far.started_ns)).flatten();
        let is_once = near.syn_ack == 1 && far.syn_ack == 1;
        let times = syn_ack_ns(far).zip(syn_ack_ns(near)).filter(|_| is_once);
        [syn, times.and_then(|(from, to)| took(from, to))]
    }

    /// How long the way from the near place to the far one and back took, ns: a clock measures its own part.
    #[must_use]
    pub fn round_trip_ns(&self, row: &Row) -> Option<u64> {
        let [Some(near), Some(far)] = self.near_and_far(row) else { return None };
        let is_once = near.syn_ack == 1 && far.syn_ack == 1 && row.outcome != Outcome::AnsweredBetween;
        let legs = near.syn_to_syn_ack_ns().zip(far.syn_to_syn_ack_ns()).filter(|_| is_once);
        legs.and_then(|(near, far)| near.checked_sub(far))
    }

    /// Whether nothing is known to be missing in either account.
    #[must_use]
    pub fn is_exact(&self) -> bool {
        self.accounts.iter().all(|account| account.inexact.is_empty())
    }

    /// Whether both accounts together say anything.
    #[must_use]
    pub fn tells(&self) -> bool {
        let Totals { matched, answered_between, lost_between, .. } = &self.totals;
        matched + answered_between + lost_between.iter().sum::<u64>() != 0
    }

    /// Which account is nearer to the initiators of most attempts.
    #[must_use]
    pub const fn usually_near(&self) -> Which {
        self.usual
    }

    /// The most frequent translations, and how many attempts had each.
    #[must_use]
    pub fn most_translations(&self, most: usize) -> Vec<(&Translation, u64)> {
        let mut all: Vec<_> = self.translations.iter().map(|(of, attempts)| (of, *attempts)).collect();
        all.sort_by_key(|(_, attempts)| std::cmp::Reverse(*attempts));
        all.truncate(most);
        all
    }

    fn sum(&mut self) {
        let mut totals = Totals::default();
        let (mut one_way, mut round_trip) = (<[Vec<u64>; 2]>::default(), Vec::new());
        for row in &self.rows {
            for (times, time) in one_way.iter_mut().zip(self.one_way_ns(row)) {
                times.extend(time);
            }
            round_trip.extend(self.round_trip_ns(row));
            let [near, far] = self.near_and_far(row);
            let is_translated = near.zip(far).is_some_and(|(near, far)| !near.has_ends_of(far));
            totals.count(row, is_translated);
            if let (true, true, Some(near), Some(far)) = (is_translated, row.is_matched(), near, far) {
                let translation = Translation::between(near, far);
                if self.translations.len() < MOST_TRANSLATIONS || self.translations.contains_key(&translation)
                {
                    *self.translations.entry(translation).or_default() += 1;
                }
            }
        }
        let sorted = |mut times: Vec<u64>| {
            times.sort_unstable();
            Times(times)
        };
        (self.totals, self.one_way, self.round_trip) = (totals, one_way.map(sorted), sorted(round_trip));
    }
}

impl Row {
    /// Whether both accounts have it by its numbers.
    #[must_use]
    pub fn is_matched(&self) -> bool {
        !self.places.contains(&NONE) && self.outcome != Outcome::AnsweredBetween
    }

    /// The one account that has it; `None` where both do.
    #[must_use]
    pub fn only(&self) -> Option<Which> {
        match self.places {
            [NONE, _] => Some(Which::Second),
            [_, NONE] => Some(Which::First),
            [_, _] => None,
        }
    }
}

impl Totals {
    fn count(&mut self, row: &Row, is_translated: bool) {
        if row.is_matched() {
            self.matched += 1;
            self.translated += u64::from(is_translated);
            self.rewritten += u64::from(row.is_rewritten);
        }
        if let Some(which) = row.only() {
            self.only[which as usize] += 1;
        }
        self.nearer[row.near as usize] += u64::from(row.only().is_none());
        match row.outcome {
            Outcome::Completed => self.completed += 1,
            Outcome::LostBetween(segment) => self.lost_between[segment as usize] += 1,
            Outcome::LostIn(which) => self.lost_in[which as usize] += 1,
            Outcome::Ended(verdict) => *self.ended.entry(verdict.name()).or_default() += 1,
            Outcome::ResetBetween(_) => self.reset_between += 1,
            Outcome::AnsweredBetween => self.answered_between += 1,
            Outcome::Undecided(doubt) => self.undecided[doubt as usize] += 1,
            Outcome::Alone => self.unclear += u64::from(row.only() == Some(row.near)),
        }
    }
}

fn sides<'a>(accounts: &'a [Account; 2], row: &Row) -> [Option<&'a Attempt>; 2] {
    let at = |account: usize| accounts[account].attempts.get(row.places[account] as usize);
    [at(0), at(1)]
}

/// When it began, by the clock of the account that has it; the first one's where both do.
fn started(accounts: &[Account; 2], row: &Row) -> u64 {
    let [first, second] = sides(accounts, row);
    first.or(second).map_or(0, |attempt| attempt.started_ns)
}

/// Whether all attempts that both have, have the same times in both: no two places do.
fn is_one_place(accounts: [&Account; 2], pairs: &[Pair]) -> bool {
    let is_same = |pair: &Pair| {
        let [first, second] = [0, 1].map(|side| &accounts[side].attempts[pair.places[side] as usize]);
        first.started_ns == second.started_ns
            && first.syn_to_syn_ack_ns() == second.syn_to_syn_ack_ns()
            && first.has_ends_of(second)
    };
    !pairs.is_empty() && pairs.iter().all(is_same)
}

/// Makes the rows.
struct Builder<'a> {
    accounts: [&'a Account; 2],
    matching: &'a Matching<'a>,
    /// Which account is nearer to the initiators, by most attempts.
    usual: Which,
    clocks: Clocks,
    rows: Vec<Row>,
    /// Attempts that are paired by time alone, by account.
    tied: [BTreeSet<u32>; 2],
}

impl<'a> Builder<'a> {
    fn new(accounts: [&'a Account; 2], matching: &'a Matching<'a>) -> Self {
        let mut builder = Self {
            accounts,
            matching,
            usual: Which::First,
            clocks: Clocks::default(),
            rows: Vec::new(),
            tied: Default::default(),
        };
        builder.usual = builder.usually_nearer();
        builder
    }

    fn of(&self, places: [u32; 2]) -> [&'a Attempt; 2] {
        [0, 1].map(|side| &self.accounts[side].attempts[places[side] as usize])
    }

    /// Which account is nearer to the initiators, by most of the attempts that tell; else as they are named.
    fn usually_nearer(&self) -> Which {
        let mut votes = [0_u64; 2];
        for pair in &self.matching.pairs {
            if let Some(near) = nearer(self.of(pair.places)) {
                votes[near as usize] += 1;
            }
        }
        // The seats of what they do not share.
        if votes == [0, 0] {
            for (account, which) in self.accounts.iter().zip(Which::BOTH) {
                for attempt in &account.attempts {
                    if let Some(near) = by_seat(attempt, which) {
                        votes[near as usize] += 1;
                    }
                }
            }
        }
        // What answers is further away, unless something between completed it.
        if votes == [0, 0] {
            for pair in &self.matching.pairs {
                let [first, second] = self.of(pair.places);
                if first.is_answered() && !second.is_answered() && !first.is_completed() {
                    votes[1] += 1;
                }
            }
        }
        if votes[1] > votes[0] { Which::Second } else { Which::First }
    }

    /// The rows of attempts that both accounts have.
    fn both(&mut self) {
        let through = self.rewritten_services();
        for pair in &self.matching.pairs {
            let sides = self.of(pair.places);
            let near_is = nearer(sides).unwrap_or(self.usual);
            let [first, second] = sides;
            let (near, far) = if near_is == Which::First { (first, second) } else { (second, first) };
            let is_other = match pair.link {
                Link::Numbers | Link::OneNumber => false,
                Link::OtherK => true,
                Link::Ends => !through.contains(&near.responder),
            };
            let mut outcome = if is_other { Outcome::AnsweredBetween } else { of_both(near, far, near_is) };
            let far_sees_answers = far.is_answered() || self.accounts[near_is.other() as usize].sees_answers;
            if let Outcome::ResetBetween(verdict) = outcome
                && near.is_reset_by_responder()
                && !far_sees_answers
            {
                outcome = Outcome::Ended(verdict);
            }
            if outcome != Outcome::AnsweredBetween {
                self.clocks.note(near, far, near_is == Which::First);
            }
            let is_rewritten = matches!(pair.link, Link::OneNumber | Link::Ends) && !is_other;
            self.rows.push(Row { places: pair.places, near: near_is, outcome, is_rewritten });
        }
    }

    /// Services whose attempts pass with other numbers: an attempt that was answered at the far place alone
    /// shows it. One that was answered sooner, or completed, near the initiator alone shows that something
    /// between answers.
    fn rewritten_services(&self) -> BTreeSet<End> {
        let (mut through, mut own) = (BTreeSet::new(), BTreeSet::new());
        for pair in self.matching.pairs.iter().filter(|pair| pair.link == Link::Ends) {
            let sides = self.of(pair.places);
            let near_is = nearer_by_seat(sides).unwrap_or(self.usual);
            let [first, second] = sides;
            let (near, far) = if near_is == Which::First { (first, second) } else { (second, first) };
            let legs = near.syn_to_syn_ack_ns().zip(far.syn_to_syn_ack_ns());
            if near.is_answered() && !far.is_answered() || legs.is_some_and(|(near, far)| near < far) {
                own.insert(near.responder);
            } else if far.is_answered() && !near.is_answered() {
                through.insert(near.responder);
            }
        }
        through.difference(&own).copied().collect()
    }

    fn left(&self, account: usize, wanted: impl Fn(&Attempt) -> bool) -> Vec<u32> {
        let attempts = &self.accounts[account].attempts;
        let mut left: Vec<u32> = attempts
            .iter()
            .zip(0..)
            .filter(|(attempt, place)| self.matching.is_alone(account, *place as usize) && wanted(attempt))
            .map(|(_, place)| place)
            .collect();
        left.sort_by_key(|place| attempts[*place as usize].started_ns);
        left
    }

    /// The rows of attempts that a proxy between answered: by time alone, and only where both accounts list
    /// what completed.
    fn between(&mut self) {
        if !self.accounts.iter().all(|account| account.lists_completions) {
            return;
        }
        let (near, far) = (self.usual as usize, self.usual.other() as usize);
        let before = self.left(near, Attempt::is_answered);
        let behind = self.left(far, |_| true);
        let ahead = self.matching.ahead_ns.unwrap_or(0);
        let ahead = if self.usual == Which::First { ahead } else { -ahead };
        let [before, behind] = [(near, &before), (far, &behind)]
            .map(|(account, places)| Chosen { attempts: &self.accounts[account].attempts, places });
        for [at_near, at_far] in between::pairs(before, behind, ahead) {
            let mut places = [NONE; 2];
            (places[near], places[far]) = (at_near, at_far);
            self.tied[near].insert(at_near);
            self.tied[far].insert(at_far);
            let outcome = Outcome::AnsweredBetween;
            self.rows.push(Row { places, near: self.usual, outcome, is_rewritten: false });
        }
    }

    /// The rows of attempts that one account alone has.
    fn alone(&mut self) {
        let known = self.known_services();
        let like = self.like_another();
        for (account, which) in [0, 1].into_iter().zip(Which::BOTH) {
            for place in self.left(account, |_| true) {
                if self.tied[account].contains(&place) {
                    continue;
                }
                let attempt = &self.accounts[account].attempts[place as usize];
                let near = by_seat(attempt, which).unwrap_or(self.usual);
                let outcome = if near == which && !like[account][place as usize] {
                    self.of_near(attempt, which, &known)
                } else {
                    Outcome::Alone
                };
                let mut places = [NONE; 2];
                places[account] = place;
                self.rows.push(Row { places, near, outcome, is_rewritten: false });
            }
        }
    }

    /// Of each account's attempts, by their places, whether one that the other account alone has has the same ends:
    /// its number was rewritten, or it is another attempt.
    fn like_another(&self) -> [Vec<bool>; 2] {
        let mut like = [0, 1].map(|account| vec![false; self.accounts[account].attempts.len()]);
        let ends = |account: usize, place: u32| {
            let attempt = &self.accounts[account].attempts[place as usize];
            (attempt.initiator, attempt.responder)
        };
        let [first, second] = [0, 1].map(|account| {
            let mut left = self.left(account, |_| true);
            left.sort_unstable_by_key(|place| ends(account, *place));
            left
        });
        let mut from = 0;
        for group in first.chunk_by(|a, b| ends(0, *a) == ends(0, *b)) {
            let wanted = ends(0, group[0]);
            from += second[from..].partition_point(|place| ends(1, *place) < wanted);
            let same = second[from..].partition_point(|place| ends(1, *place) == wanted);
            if same != 0 {
                group.iter().for_each(|place| like[0][*place as usize] = true);
                second[from..from + same].iter().for_each(|place| like[1][*place as usize] = true);
            }
        }
        like
    }

    /// The responders of whose attempts the far account would have some, by [`Which`] is near; an empty set where
    /// nothing tells.
    fn known_services(&self) -> [BTreeSet<End>; 2] {
        let mut known = <[BTreeSet<End>; 2]>::default();
        for row in self.rows.iter().filter(|row| row.only().is_none()) {
            let near = self.of(row.places)[row.near as usize];
            known[row.near as usize].insert(near.responder);
        }
        for near in Which::BOTH {
            let far = self.accounts[near.other() as usize];
            known[near as usize].extend(far.attempts.iter().map(|attempt| attempt.responder));
        }
        known
    }

    /// What became of an attempt that the account near its initiator alone has.
    fn of_near(&self, attempt: &Attempt, near: Which, known: &[BTreeSet<End>; 2]) -> Outcome {
        let known = &known[near as usize];
        let far = self.accounts[near.other() as usize];
        let ahead = self.matching.ahead_ns.unwrap_or(0);
        let ahead = if near == Which::First { ahead } else { -ahead };
        let at_far = attempt.started_ns.cast_signed().saturating_add(ahead);
        let would_be_there =
            !attempt.is_answered() && far.lists_failures && far.sees_syns && far.looked_at(at_far);
        if let Some(verdict) = attempt.verdict.filter(|_| attempt.was_ended()) {
            // A far account may be of some ports alone.
            let is_between = would_be_there && attempt.is_reset_by_responder();
            return if is_between && known.contains(&attempt.responder) {
                Outcome::ResetBetween(verdict)
            } else {
                Outcome::Ended(verdict)
            };
        }
        let host = attempt.responder.host();
        let goes_there =
            known.is_empty() || known.range(host..).next().is_some_and(|known| known.host() == host);
        if !would_be_there || !goes_there {
            return Outcome::Alone;
        }
        match attempt.cause {
            Some(Cause::AnswerUnseen) => Outcome::Undecided(Doubt::OneWay),
            Some(Cause::NoSynAck | Cause::NoAck) | None => stuck(attempt, Outcome::LostBetween(Segment::Syn)),
        }
    }
}

/// Which account is nearer by the seats alone.
fn nearer_by_seat([first, second]: [&Attempt; 2]) -> Option<Which> {
    by_seat(first, Which::First).or_else(|| by_seat(second, Which::Second))
}
