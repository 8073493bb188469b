//! Sums the counter blocks of all CPUs into one that balances, whatever the programs count meanwhile.
//!
//! Around each balanced pair of changes, a CPU increments the last word of its block before and the first
//! word after. The kernel copies a block from the first word to the last. Equal markers therefore mean that
//! no pair was under way: every pair that had begun by the end of the copy had ended before its start. Such a
//! block balances by itself, and so does any sum of such blocks, whenever each was read.
//!
//! That holds where a processor reads in the order of the program, as x86 does. Others may read the words of
//! one copy in any order. There a block is the middle one of three copies in a row: the first has the marker
//! behind a pair and the last the marker before it. A barrier stands between two copies.

use std::collections::VecDeque;
use std::sync::atomic::{Ordering, fence};
use std::time::Duration;

use handshake_common::abi::{COUNTERS, Counter, CounterBlock};

use super::maps::KEEPS_ORDER;
use crate::error::LiveError;

/// The pauses together before it gives up. A hypervisor that has more to do than CPUs takes one away for some
/// tenths of a second.
const PATIENCE: Duration = Duration::from_millis(500);
/// Readings without a pause between them: a pair takes tens of nanoseconds, a reading a microsecond.
const EAGER_READINGS: u32 = 64;
/// The first pause between later readings: the writer may have lost its CPU in the middle of a pair. Each
/// pause is longer than the one before, up to [`LONGEST_PAUSE`].
const PAUSE: Duration = Duration::from_micros(100);
/// The longest pause between two readings.
const LONGEST_PAUSE: Duration = Duration::from_millis(5);

/// Reads until every CPU's block is whole and no gauge's sum is negative. `read` returns the blocks of all
/// CPUs, always the same number; `pause` is called between late readings, for up to [`PATIENCE`] in all.
pub(super) fn settle<B: AsRef<[CounterBlock]>>(
    read: impl FnMut() -> Result<B, LiveError>,
    pause: impl FnMut(Duration),
) -> Result<CounterBlock, LiveError> {
    settle_copies(KEEPS_ORDER, read, pause)
}

/// [`settle`], whether the words of a copy were read in their order or not.
fn settle_copies<B: AsRef<[CounterBlock]>>(
    in_order: bool,
    mut read: impl FnMut() -> Result<B, LiveError>,
    mut pause: impl FnMut(Duration),
) -> Result<CounterBlock, LiveError> {
    let mut accepted = AcceptedReading::default();
    let (mut readings, mut next, mut paused) = (0, PAUSE, Duration::ZERO);
    loop {
        readings += 1;
        let copies = read()?;
        if in_order {
            accepted.take(copies.as_ref(), copies.as_ref(), copies.as_ref());
        } else {
            // What the kernel read for this copy comes before what it reads for the next.
            fence(Ordering::SeqCst);
            accepted.take_next(copies.as_ref());
        }
        let torn = accepted.first_torn();
        if torn.is_none() {
            let sum = sum(accepted.blocks.iter().flatten());
            if is_possible(&sum) {
                return Ok(sum);
            }
            // An attempt moved from one CPU to another between their readings: read all of them again.
            accepted.blocks.clear();
        }
        if paused >= PATIENCE {
            return Err(match torn {
                Some(cpu) => LiveError::Unsettled { cpu, readings },
                None => LiveError::Negative { readings },
            });
        }
        if readings >= EAGER_READINGS {
            pause(next);
            (paused, next) = (paused + next, (2 * next).min(LONGEST_PAUSE));
        }
    }
}

/// The latest whole block of each CPU. Only CPUs without one are waited for: with many busy CPUs there may be
/// no moment at which all blocks are whole.
#[derive(Default)]
struct AcceptedReading {
    blocks: Vec<Option<CounterBlock>>,
    /// The latest copies, two at most, where one has no order.
    copies: VecDeque<Vec<CounterBlock>>,
}

impl AcceptedReading {
    /// Keeps each block without a pair that was under way between the copies before and after it.
    fn take(&mut self, before: &[CounterBlock], read: &[CounterBlock], after: &[CounterBlock]) {
        self.blocks.resize(read.len(), None);
        for (((kept, block), before), after) in self.blocks.iter_mut().zip(read).zip(before).zip(after) {
            if before.words[Counter::End as usize] == after.words[Counter::Begin as usize] {
                *kept = Some(*block);
            }
        }
    }

    /// Takes another copy: the one before it is between two now.
    fn take_next(&mut self, read: &[CounterBlock]) {
        if self.copies.len() == 2
            && let Some(first) = self.copies.pop_front()
            && let Some(second) = self.copies.pop_front()
        {
            self.take(&first, &second, read);
            self.copies.push_back(second);
        } else {
            self.blocks.resize(read.len(), None);
        }
        self.copies.push_back(read.to_vec());
    }

    fn first_torn(&self) -> Option<usize> {
        self.blocks.iter().position(Option::is_none)
    }
}

/// Whether no pair of changes was under way while the block was copied, in order.
#[cfg(test)]
pub(super) fn is_whole(block: &CounterBlock) -> bool {
    block.words[Counter::End as usize] == block.words[Counter::Begin as usize]
}

/// Sums the blocks, and takes the largest value of each maximum. Gauges wrap: one CPU may count an attempt
/// in, and another count it out.
pub(super) fn sum<'a>(blocks: impl Iterator<Item = &'a CounterBlock>) -> CounterBlock {
    let mut total = CounterBlock { words: [0; COUNTERS] };
    for block in blocks {
        for (place, (total, word)) in total.words.iter_mut().zip(block.words).enumerate() {
            *total = if is_maximum(place) { (*total).max(word) } else { total.wrapping_add(word) };
        }
    }
    total
}

const fn is_maximum(place: usize) -> bool {
    place >= Counter::MaxSynToSynAck as usize && place <= Counter::MaxAckToFirstByte as usize
}

/// Whether no sum is negative. A negative one comes from blocks read too far apart; no counter reaches 2⁶³.
fn is_possible(sum: &CounterBlock) -> bool {
    sum.words.iter().all(|word| word.cast_signed() >= 0)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::collections::VecDeque;

    use handshake_common::verdict::Leg;

    use super::*;

    /// Whether the gauges of the identity add up to the attempts.
    fn balances(block: &CounterBlock) -> bool {
        let gauges = &block.words[Counter::Completed as usize..=Counter::LAST_TCP as usize];
        gauges.iter().fold(0, |sum: u64, gauge| sum.wrapping_add(*gauge))
            == block.words[Counter::Attempts as usize]
    }

    const fn empty() -> CounterBlock {
        CounterBlock { words: [0; COUNTERS] }
    }

    /// The stores of a CPU, one word per step: its marker, both halves of a pair, its marker.
    fn steps(from: Counter, from_delta: u64, to: Counter) -> [(Counter, u64); 4] {
        [(Counter::Begin, 1), (from, from_delta), (to, 1), (Counter::End, 1)]
    }

    /// Copies a block word by word while `steps` are stored: step i happens before the copy of word `at[i]`.
    fn copied(start: &CounterBlock, steps: &[(Counter, u64)], at: &[usize]) -> CounterBlock {
        let mut live = *start;
        let mut copy = empty();
        let mut next = 0;
        for place in 0..COUNTERS {
            while next < steps.len() && at[next] <= place {
                let (counter, delta) = steps[next];
                live.words[counter as usize] = live.words[counter as usize].wrapping_add(delta);
                next += 1;
            }
            copy.words[place] = live.words[place];
        }
        copy
    }

    /// A pair torn at each place: every accepted block balances.
    #[test]
    fn no_torn_block_is_accepted() {
        let mut start = empty();
        start.words[Counter::Attempts as usize] = 9;
        start.words[Counter::OpenNoSynAck as usize] = 4;
        start.words[Counter::Completed as usize] = 5;
        let pairs = [
            steps(Counter::Attempts, 1, Counter::OpenNoSynAck),
            steps(Counter::OpenNoSynAck, u64::MAX, Counter::OpenNoAck),
            steps(Counter::OpenNoSynAck, u64::MAX, Counter::Refused),
        ];
        let (mut torn, mut whole) = (0, 0);
        for pair in &pairs {
            // The four stores at every four places of the copy, in their order.
            let places = [0, 1, 2, 3, 4, 8, 10, 13, 14, 15, 16, 40, 126, 127, 128];
            for (a, b, c, d) in ordered(&places) {
                let block = copied(&start, pair, &[a, b, c, d]);
                assert!(!is_whole(&block) || balances(&block), "accepted a torn block: {a} {b} {c} {d}");
                torn += u32::from(!balances(&block));
                whole += usize::from(is_whole(&block));
            }
        }
        assert!(torn > 100, "the test must meet torn blocks, not only {torn}");
        assert_eq!(whole, 2 * pairs.len(), "a block is whole if the pair is wholly before or after the copy");
    }

    fn ordered(places: &[usize]) -> impl Iterator<Item = (usize, usize, usize, usize)> + '_ {
        let from = |least: usize| places.iter().copied().filter(move |place| *place >= least);
        from(0).flat_map(move |a| {
            from(a).flat_map(move |b| from(b).flat_map(move |c| from(c).map(move |d| (a, b, c, d))))
        })
    }

    fn block(words: &[(Counter, u64)]) -> CounterBlock {
        let mut block = empty();
        for (counter, value) in words {
            block.words[*counter as usize] = *value;
        }
        block
    }

    /// Runs `settle` over prepared readings, and repeats the last one. Returns the result and the number of
    /// readings.
    fn settled(readings: &[Vec<CounterBlock>]) -> (Result<CounterBlock, LiveError>, u32) {
        let mut left: VecDeque<_> = readings.to_vec().into();
        let mut count = 0;
        let result = settle(
            || {
                count += 1;
                Ok(if left.len() > 1 { left.pop_front() } else { left.front().cloned() }.unwrap_or_default())
            },
            |_| {},
        );
        (result, count)
    }

    /// Runs `settle` over a block that is whole after `away`. Returns the result and the pauses in all.
    fn settled_after(away: Duration) -> (Result<CounterBlock, LiveError>, Duration) {
        let paused = Cell::new(Duration::ZERO);
        let torn = block(&[(Counter::Begin, 1), (Counter::Attempts, 8)]);
        let whole = block(&[(Counter::Attempts, 8), (Counter::OpenNoSynAck, 8)]);
        let read = || Ok(vec![if paused.get() < away { torn } else { whole }]);
        let result = settle(read, |pause| paused.set(paused.get() + pause));
        (result, paused.get())
    }

    /// A hypervisor may take a CPU away in the middle of a pair. It is waited for, and not much longer than
    /// it is away; the run must still be able to end.
    #[test]
    fn a_descheduled_cpu_is_waited_for() {
        for away in [1, 40, 300, 499].map(Duration::from_millis) {
            let (result, paused) = settled_after(away);
            assert!(result.is_ok_and(|sum| balances(&sum)), "{away:?}");
            assert!(paused < away + LONGEST_PAUSE, "{paused:?} for {away:?}");
        }
        let (result, paused) = settled_after(Duration::MAX);
        assert!(matches!(result, Err(LiveError::Unsettled { cpu: 0, .. })));
        assert!(paused >= PATIENCE && paused < PATIENCE + LONGEST_PAUSE, "{paused:?}");
    }

    #[test]
    fn only_the_torn_cpu_is_read_again() {
        let whole = block(&[(Counter::Attempts, 2), (Counter::OpenNoSynAck, 2)]);
        let torn = block(&[(Counter::Begin, 1), (Counter::Attempts, 8)]);
        let later = block(&[
            (Counter::Begin, 1),
            (Counter::End, 1),
            (Counter::Attempts, 8),
            (Counter::OpenNoSynAck, 8),
        ]);
        // The first CPU is whole at first and torn afterwards, the second the other way round.
        let (sum, readings) = settled(&[vec![whole, torn], vec![torn, torn], vec![torn, later]]);
        let sum = sum.expect("each CPU was whole once");
        assert_eq!(readings, 3);
        assert_eq!(sum.words[Counter::Attempts as usize], 10);
        assert!(balances(&sum));
    }

    #[test]
    fn a_negative_sum_is_read_again() {
        // CPU 1 completed an attempt that CPU 0 had not yet counted when it was read.
        let before = block(&[]);
        let after = block(&[(Counter::Attempts, 1), (Counter::OpenNoSynAck, 1)]);
        let mover = block(&[(Counter::OpenNoSynAck, u64::MAX), (Counter::Completed, 1)]);
        let (sum, readings) = settled(&[vec![before, mover], vec![after, mover]]);
        let sum = sum.expect("the second reading is possible");
        assert_eq!(readings, 2);
        assert_eq!(sum.words[Counter::OpenNoSynAck as usize], 0);
        assert_eq!(sum.words[Counter::Completed as usize], 1);
        assert!(balances(&sum));
    }

    #[test]
    fn maxima_are_not_summed() {
        let a = block(&[(Counter::MaxConnect, 70), (Counter::MaxSynToSynAck, 5), (Counter::UdpBytes, 3)]);
        let b = block(&[(Counter::MaxConnect, 40), (Counter::MaxSynAckToAck, 9), (Counter::UdpBytes, 4)]);
        let sum = sum([a, b].iter());
        assert_eq!(sum.words[Counter::MaxConnect as usize], 70);
        assert_eq!(sum.words[Counter::MaxSynToSynAck as usize], 5);
        assert_eq!(sum.words[Counter::MaxSynAckToAck as usize], 9);
        assert_eq!(sum.words[Counter::UdpBytes as usize], 7);
        assert_eq!((0..COUNTERS).filter(|place| is_maximum(*place)).count(), Leg::ALL.len());
    }

    #[test]
    fn counters_that_never_settle_are_an_error_with_the_cpu() {
        let torn = block(&[(Counter::Begin, 1)]);
        let (result, readings) = settled(&[vec![empty(), torn]]);
        let Err(LiveError::Unsettled { cpu: 1, readings: told }) = result else { panic!("{result:?}") };
        assert!(told == readings && readings > EAGER_READINGS, "{told} {readings}");
        let negative = block(&[(Counter::OpenNoAck, u64::MAX), (Counter::Completed, 1)]);
        let (result, _) = settled(&[vec![negative]]);
        assert!(matches!(result, Err(LiveError::Negative { .. })));
    }

    /// What a word has after so many of the steps.
    fn after(steps: &[(Counter, u64)], count: usize, place: Counter) -> u64 {
        let own = steps[..count].iter().filter(|(counter, _)| *counter as usize == place as usize);
        own.fold(0, |sum: u64, (_, delta)| sum.wrapping_add(*delta))
    }

    /// Three copies while two pairs are counted, each word of a copy read at any moment between the copy's
    /// begin and its end: all that are accepted balance, and some are.
    #[test]
    fn of_three_copies_without_order_the_middle_one_balances() {
        let mut begun = steps(Counter::Attempts, 1, Counter::OpenNoSynAck);
        begun[1] = (Counter::Attempts, 1);
        let steps = [begun, steps(Counter::OpenNoSynAck, u64::MAX, Counter::Completed)].concat();
        let (last, mut whole) = (steps.len(), 0);
        let gauges = [Counter::Attempts, Counter::OpenNoSynAck, Counter::Completed];
        let choices = |from: usize, to: usize| from..=to;
        for (first, second) in (0..=last).flat_map(|first| choices(first, last).map(move |to| (first, to))) {
            // The first copy ends at `first` at the latest, and the third begins at `second` at the earliest.
            for seen in 0..(second - first + 1).pow(3) {
                let width = second - first + 1;
                let at = [seen, seen / width, seen / width / width].map(|part| first + part % width);
                let mut copies = [empty(); 3];
                copies[0].words[Counter::End as usize] = after(&steps, first, Counter::End);
                copies[2].words[Counter::Begin as usize] = after(&steps, second, Counter::Begin);
                for (place, at) in gauges.into_iter().zip(at) {
                    copies[1].words[place as usize] = after(&steps, at, place);
                }
                let mut accepted = AcceptedReading::default();
                copies.iter().for_each(|copy| accepted.take_next(std::slice::from_ref(copy)));
                if let Some(Some(block)) = accepted.blocks.first() {
                    assert!(balances(block), "from {first} to {second}, words at {at:?}");
                    whole += 1;
                }
            }
        }
        assert!(whole > 0, "none is accepted");
    }

    #[test]
    fn without_order_one_copy_and_two_are_not_enough() {
        let copies = Cell::new(0);
        let read = || {
            copies.set(copies.get() + 1);
            Ok(vec![block(&[(Counter::Begin, 1), (Counter::End, 1), (Counter::Attempts, 0)])])
        };
        settle_copies(false, read, |_| ()).expect("nothing is under way");
        assert_eq!(copies.get(), 3);
    }
}
