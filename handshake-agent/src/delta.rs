//! Values as words of 64 bits, and what changed between two sets of such words. A recording is made of these:
//! most words of a reading are those of the reading before, or a little more.
//!
//! ```text
//! Rows ── changes_since(before) ─▶ bytes ── apply ─▶ Rows
//! ```
//!
//! A row is written as the places of the words that differ, with the differences, each number in as few bytes as
//! it needs (LEB128). Pure. What is read is not trusted: it may make no more words than [`MOST_WORDS`].

use std::collections::BTreeMap;
use std::sync::Arc;

/// Which row: its kind, and its number among those.
type Key = (u8, u64);

/// Words of all rows together, at most: far more than the largest reading has.
const MOST_WORDS: usize = 1 << 23;
/// What a row takes beside its words, in words.
const ROW: usize = 16;

/// A value that can be put into words.
pub(crate) trait Worded: Sized {
    /// Appends its words.
    fn put(&self, to: &mut Vec<u64>);
    /// Takes it from the next words; `None` where they are none of it.
    fn take(from: &mut Taking<'_>) -> Option<Self>;
}

/// Words that are being taken, the next one first.
pub(crate) struct Taking<'a>(&'a [u64]);

impl<'a> Taking<'a> {
    /// The next word.
    pub(crate) fn word(&mut self) -> Option<u64> {
        self.some(1).map(|words| words[0])
    }

    fn some(&mut self, count: usize) -> Option<&'a [u64]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }
}

/// Puts a struct into words, field by field.
macro_rules! worded {
    ($name:ty { $($field:ident),+ $(,)? }) => {
        impl $crate::delta::Worded for $name {
            fn put(&self, to: &mut Vec<u64>) {
                $($crate::delta::Worded::put(&self.$field, to);)+
            }

            fn take(from: &mut $crate::delta::Taking<'_>) -> Option<Self> {
                Some(Self { $($field: $crate::delta::Worded::take(from)?),+ })
            }
        }
    };
}

/// Puts enumerations without values into a word: the place among all.
macro_rules! worded_places {
    ($($name:ty),+ $(,)?) => {
        $(impl $crate::delta::Worded for $name {
            fn put(&self, to: &mut Vec<u64>) {
                to.extend(Self::ALL.iter().zip(0..).find(|(one, _)| *one == self).map(|(_, place)| place));
            }

            fn take(from: &mut $crate::delta::Taking<'_>) -> Option<Self> {
                Self::ALL.get(usize::try_from(from.word()?).ok()?).copied()
            }
        })+
    };
}

pub(crate) use {worded, worded_places};

macro_rules! worded_numbers {
    ($($number:ty),+) => {
        $(impl Worded for $number {
            fn put(&self, to: &mut Vec<u64>) {
                to.push(u64::from(*self));
            }

            fn take(from: &mut Taking<'_>) -> Option<Self> {
                Self::try_from(from.word()?).ok()
            }
        })+
    };
}

worded_numbers!(u8, u16, u32, u64);

impl Worded for bool {
    fn put(&self, to: &mut Vec<u64>) {
        to.push(u64::from(*self));
    }

    fn take(from: &mut Taking<'_>) -> Option<Self> {
        Some(from.word()? != 0)
    }
}

impl Worded for String {
    fn put(&self, to: &mut Vec<u64>) {
        to.push(self.len() as u64);
        to.extend(self.as_bytes().chunks(size_of::<u64>()).map(|bytes| {
            let mut word = [0; size_of::<u64>()];
            word[..bytes.len()].copy_from_slice(bytes);
            u64::from_le_bytes(word)
        }));
    }

    fn take(from: &mut Taking<'_>) -> Option<Self> {
        let length = usize::try_from(from.word()?).ok()?;
        let words = from.some(length.div_ceil(size_of::<u64>()))?;
        let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        bytes.truncate(length);
        Self::from_utf8(bytes).ok()
    }
}

impl<T: Worded> Worded for Option<T> {
    fn put(&self, to: &mut Vec<u64>) {
        self.is_some().put(to);
        self.iter().for_each(|value| value.put(to));
    }

    fn take(from: &mut Taking<'_>) -> Option<Self> {
        if bool::take(from)? { T::take(from).map(Some) } else { Some(None) }
    }
}

impl<T: Worded> Worded for Vec<T> {
    fn put(&self, to: &mut Vec<u64>) {
        to.push(self.len() as u64);
        self.iter().for_each(|value| value.put(to));
    }

    fn take(from: &mut Taking<'_>) -> Option<Self> {
        let length = usize::try_from(from.word()?).ok()?;
        // Each takes a word at least.
        let mut all = Self::with_capacity(length.min(from.0.len()));
        for _ in 0..length {
            all.push(T::take(from)?);
        }
        Some(all)
    }
}

impl<T: Worded, const N: usize> Worded for [T; N] {
    fn put(&self, to: &mut Vec<u64>) {
        self.iter().for_each(|value| value.put(to));
    }

    fn take(from: &mut Taking<'_>) -> Option<Self> {
        let all: Option<Vec<T>> = (0..N).map(|_| T::take(from)).collect();
        all?.try_into().ok()
    }
}

impl<A: Worded, B: Worded> Worded for (A, B) {
    fn put(&self, to: &mut Vec<u64>) {
        self.0.put(to);
        self.1.put(to);
    }

    fn take(from: &mut Taking<'_>) -> Option<Self> {
        Some((A::take(from)?, B::take(from)?))
    }
}

impl<T: Worded> Worded for Arc<T> {
    fn put(&self, to: &mut Vec<u64>) {
        self.as_ref().put(to);
    }

    fn take(from: &mut Taking<'_>) -> Option<Self> {
        T::take(from).map(Self::new)
    }
}

/// Rows of words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rows(BTreeMap<Key, Vec<u64>>);

impl Rows {
    /// Puts a value into a row.
    pub(crate) fn set(&mut self, kind: u8, number: u64, value: &impl Worded) {
        let mut words = Vec::new();
        value.put(&mut words);
        self.0.insert((kind, number), words);
    }

    /// Puts words into a row.
    pub(crate) fn set_words(&mut self, kind: u8, number: u64, words: Vec<u64>) {
        self.0.insert((kind, number), words);
    }

    /// The words of a row.
    #[must_use]
    pub(crate) fn words(&self, kind: u8, number: u64) -> Option<&[u64]> {
        self.0.get(&(kind, number)).map(Vec::as_slice)
    }

    /// The value of a row; `None` where there is no such row, or its words are none.
    #[must_use]
    pub(crate) fn get<T: Worded>(&self, kind: u8, number: u64) -> Option<T> {
        T::take(&mut Taking(self.words(kind, number)?))
    }

    /// The rows of a kind, by their numbers.
    pub(crate) fn each_words(&self, kind: u8) -> impl Iterator<Item = (u64, &[u64])> {
        self.0.range((kind, 0)..=(kind, u64::MAX)).map(|((_, number), words)| (*number, words.as_slice()))
    }

    /// The values of the rows of a kind; `None` where the words of one are none.
    #[must_use]
    pub(crate) fn each<T: Worded>(&self, kind: u8) -> Option<Vec<(u64, T)>> {
        self.each_words(kind).map(|(number, words)| Some((number, T::take(&mut Taking(words))?))).collect()
    }

    /// Removes the rows of a kind.
    pub(crate) fn clear(&mut self, kind: u8) {
        self.0.retain(|(known, _), _| *known != kind);
    }

    /// What makes these rows of those.
    #[must_use]
    pub(crate) fn changes_since(&self, before: &Self) -> Vec<u8> {
        let mut changes = Changes::default();
        let (mut now, mut then) = (self.0.iter().peekable(), before.0.iter().peekable());
        loop {
            match (now.peek(), then.peek()) {
                (Some((key, _)), Some((gone, _))) if gone < key => {
                    changes.remove(**gone);
                    then.next();
                }
                (Some((key, words)), Some((known, old))) if known == key => {
                    changes.change(**key, words, Some(old));
                    now.next();
                    then.next();
                }
                (Some((key, words)), _) => {
                    changes.change(**key, words, None);
                    now.next();
                }
                (None, Some((gone, _))) => {
                    changes.remove(**gone);
                    then.next();
                }
                (None, None) => return changes.bytes,
            }
        }
    }

    /// Changes these rows by what [`changes_since`](Self::changes_since) made; `None` where it is something else,
    /// and the rows are then good for nothing.
    pub(crate) fn apply(&mut self, changes: &[u8]) -> Option<()> {
        let mut bytes = Bytes(changes);
        let mut total: usize = self.0.values().map(|words| words.len() + ROW).sum();
        let mut latest: Key = (0, 0);
        while !bytes.0.is_empty() {
            let head = bytes.number()?;
            let kind = u8::try_from(head >> 1).ok()?;
            let step = bytes.number()?;
            let number = if kind == latest.0 { latest.1.wrapping_add(step) } else { step };
            latest = (kind, number);
            if head & 1 != 0 {
                total -= self.0.remove(&latest)?.len() + ROW;
                continue;
            }
            let length = usize::try_from(bytes.number()?).ok()?;
            let had = self.0.get(&latest).map_or(0, |words| words.len() + ROW);
            total = (total - had).checked_add(length)?.checked_add(ROW)?;
            if total > MOST_WORDS {
                return None;
            }
            let words = self.0.entry(latest).or_default();
            words.resize(length, 0);
            let mut place = 0_usize;
            for _ in 0..bytes.number()? {
                place = place.checked_add(usize::try_from(bytes.number()?).ok()?)?;
                let word = words.get_mut(place)?;
                *word = word.wrapping_add(unfolded(bytes.number()?));
                place += 1;
            }
        }
        Some(())
    }
}

/// What changed, as it is written.
#[derive(Default)]
struct Changes {
    bytes: Vec<u8>,
    latest: Key,
}

impl Changes {
    fn head(&mut self, (kind, number): Key, is_removed: bool) {
        let step = if kind == self.latest.0 { number.wrapping_sub(self.latest.1) } else { number };
        put_number(&mut self.bytes, u64::from(kind) << 1 | u64::from(is_removed));
        put_number(&mut self.bytes, step);
        self.latest = (kind, number);
    }

    fn remove(&mut self, key: Key) {
        self.head(key, true);
    }

    fn change(&mut self, key: Key, words: &[u64], old: Option<&Vec<u64>>) {
        if old.is_some_and(|old| old == words) {
            return;
        }
        let olds = old.into_iter().flatten().copied().chain(std::iter::repeat(0));
        let differ = words.iter().zip(olds).zip(0_usize..).filter(|((word, old), _)| *word != old);
        let differ: Vec<(usize, u64)> =
            differ.map(|((word, old), place)| (place, word.wrapping_sub(old))).collect();
        self.head(key, false);
        put_number(&mut self.bytes, words.len() as u64);
        put_number(&mut self.bytes, differ.len() as u64);
        let mut next = 0;
        for (place, difference) in differ {
            put_number(&mut self.bytes, (place - next) as u64);
            put_number(&mut self.bytes, folded(difference));
            next = place + 1;
        }
    }
}

/// Small numbers of either sign are small without one.
const fn folded(difference: u64) -> u64 {
    difference << 1 ^ (difference.cast_signed() >> 63).cast_unsigned()
}

const fn unfolded(number: u64) -> u64 {
    number >> 1 ^ (number & 1).wrapping_neg()
}

fn put_number(to: &mut Vec<u8>, mut number: u64) {
    loop {
        let low = (number & 0x7f) as u8;
        number >>= 7;
        if number == 0 {
            return to.push(low);
        }
        to.push(low | 0x80);
    }
}

/// Bytes that are being read.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn number(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..u64::BITS).step_by(7) {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            number |= u64::from(byte & 0x7f).checked_shl(shift)?;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Rows, Taking, Worded, folded, unfolded};

    fn rows() -> impl Strategy<Value = Rows> {
        let words = prop::collection::vec(prop_oneof![Just(0), 0..300_u64, any::<u64>()], 0..6);
        prop::collection::btree_map((0..4_u8, prop_oneof![0..5_u64, any::<u64>()]), words, 0..12)
            .prop_map(Rows)
    }

    proptest! {
        /// What is applied to the rows before makes those after, whatever both are.
        #[test]
        fn changes_lead_from_one_to_the_other(before in rows(), after in rows()) {
            let changes = after.changes_since(&before);
            let mut made = before.clone();
            prop_assert_eq!(made.apply(&changes), Some(()));
            prop_assert_eq!(made, after.clone());
            prop_assert!(after.changes_since(&after).is_empty());
        }

        /// Other bytes end in rows or in nothing, and neither in a panic nor in a store of any size.
        #[test]
        fn anything_may_be_read(before in rows(), bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut made = before;
            let _ = made.apply(&bytes);
            prop_assert!(made.0.values().map(Vec::len).sum::<usize>() <= super::MOST_WORDS);
        }

        #[test]
        fn differences_are_folded(number: u64) {
            prop_assert_eq!(unfolded(folded(number)), number);
        }

        #[test]
        fn values_come_back(text: String, numbers: Vec<u16>, pair: (bool, u32), some: Option<u8>) {
            let mut words = Vec::new();
            (text.clone(), (numbers.clone(), (pair, some))).put(&mut words);
            let taken = <(String, (Vec<u16>, ((bool, u32), Option<u8>)))>::take(&mut Taking(&words));
            prop_assert_eq!(taken, Some((text, (numbers, (pair, some)))));
            if !words.is_empty() {
                words.pop();
                type All = (String, (Vec<u16>, ((bool, u32), Option<u8>)));
                prop_assert_eq!(All::take(&mut Taking(&words)), None);
            }
        }
    }

    /// A length that a file claims takes no memory.
    #[test]
    fn a_claimed_length_is_not_believed() {
        let mut rows = Rows::default();
        assert_eq!(rows.apply(&[0, 0, 0xff, 0xff, 0xff, 0xff, 0x7f, 0]), None);
        assert_eq!(Vec::<u64>::take(&mut Taking(&[u64::MAX, 1])), None);
        assert_eq!(String::take(&mut Taking(&[u64::MAX, 1])), None);
    }
}
