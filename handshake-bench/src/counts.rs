//! handshake's counters, and the difference of two readings: a row proves by it that its packets were of the
//! intended kind and took the intended path.

use anyhow::{Result, ensure};
use handshake_common::abi::{CLASS_WORDS, COUNTERS, Counter, class_index};
use handshake_common::flow::Family;
use handshake_common::wire::Class;

/// All counters at one moment, or their change between two moments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CounterValues {
    /// The books' counters by [`Counter`], summed over the CPUs.
    pub(crate) words: [u64; COUNTERS],
    /// The packet classes of the first interface, by [`class_index`].
    pub(crate) classes: [u64; CLASS_WORDS],
}

impl CounterValues {
    /// The change since `earlier`, modulo 2⁶⁴: a gauge that fell has wrapped.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        let mut change = self.clone();
        change.words.iter_mut().zip(earlier.words).for_each(|(now, then)| *now = now.wrapping_sub(then));
        change.classes.iter_mut().zip(earlier.classes).for_each(|(now, then)| *now = now.wrapping_sub(then));
        change
    }

    /// The value of a counter.
    pub(crate) const fn of(&self, counter: Counter) -> u64 {
        self.words[counter as usize]
    }

    /// The number of records in the tables by the counters alone: those that entered, less those that left.
    pub(crate) fn live(&self) -> u64 {
        use Counter::{
            Attempts, EvictedClosed, EvictedCompleted, EvictedExpired, EvictedHalfOpen, EvictedMidstream,
            EvictedUdp, Midstream, UdpFlows,
        };
        let entered = [Attempts, Midstream, UdpFlows].map(|counter| self.of(counter)).iter().sum::<u64>();
        let left =
            [EvictedExpired, EvictedClosed, EvictedMidstream, EvictedUdp, EvictedHalfOpen, EvictedCompleted];
        entered.saturating_sub(left.map(|counter| self.of(counter)).iter().sum())
    }

    /// Fails unless exactly `packets` packets were counted, all of this class.
    pub(crate) fn ensure_class(&self, class: Class, family: Option<Family>, packets: u64) -> Result<()> {
        let index = class_index(class as u8, family.map_or(0, |family| family as u8));
        let (counted, all) = (self.classes[index], self.classes.iter().sum::<u64>());
        let name = class.name();
        ensure!(
            counted == packets && all == packets,
            "{packets} packets of class {name} were run; handshake counted {counted}, and {all} of all classes"
        );
        Ok(())
    }

    /// Fails unless exactly the counters in `moved` changed, each by its amount. The markers of the block may
    /// change.
    pub(crate) fn ensure_only(&self, moved: &[(Counter, u64)]) -> Result<()> {
        let markers = [Counter::End as usize, Counter::Begin as usize];
        for (index, change) in self.words.iter().enumerate().filter(|(index, _)| !markers.contains(index)) {
            let meant = moved.iter().find(|(counter, _)| *counter as usize == index).map_or(0, |(_, by)| *by);
            ensure!(*change == meant, "counter {index} moved by {change} instead of {meant}");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts() -> CounterValues {
        CounterValues { words: [0; COUNTERS], classes: [0; CLASS_WORDS] }
    }

    #[test]
    fn packets_of_another_class_are_errors() {
        let mut change = counts();
        change.classes[class_index(Class::Ack as u8, Family::V4 as u8)] = 10;
        assert!(change.ensure_class(Class::Ack, Some(Family::V4), 10).is_ok());
        assert!(change.ensure_class(Class::Ack, Some(Family::V4), 11).is_err());
        assert!(change.ensure_class(Class::Ack, Some(Family::V6), 10).is_err());
        change.classes[class_index(Class::Truncated as u8, Family::V4 as u8)] = 1;
        assert!(
            change.ensure_class(Class::Ack, Some(Family::V4), 10).is_err(),
            "one packet of another class"
        );
    }

    #[test]
    fn a_change_of_an_unlisted_counter_is_an_error() {
        let mut change = counts();
        change.words[Counter::Begin as usize] = 7;
        change.words[Counter::End as usize] = 7;
        change.words[Counter::Filtered as usize] = 5;
        assert!(change.ensure_only(&[(Counter::Filtered, 5)]).is_ok());
        assert!(change.ensure_only(&[(Counter::Filtered, 4)]).is_err());
        assert!(change.ensure_only(&[]).is_err());
        change.words[Counter::Contended as usize] = 1;
        assert!(change.ensure_only(&[(Counter::Filtered, 5)]).is_err());
    }

    #[test]
    fn the_difference_of_a_gauge_that_fell_wraps() {
        let (mut before, mut after) = (counts(), counts());
        before.words[Counter::OpenNoAck as usize] = 3;
        after.words[Counter::OpenNoAck as usize] = 2;
        assert_eq!(after.since(&before).of(Counter::OpenNoAck), u64::MAX);
    }
}
