//! What handshake has counted, and the difference of two readings: by it a row proves that its packets were of
//! the kind meant and went the way meant.

use anyhow::{Result, ensure};
use handshake_common::abi::{CLASS_WORDS, COUNTERS, Counter, class_index};
use handshake_common::flow::Family;
use handshake_common::wire::Class;

/// All counters at one moment, or how far they moved between two.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Counts {
    /// By [`Counter`], summed over the CPUs.
    pub(crate) words: [u64; COUNTERS],
    /// By [`class_index`], of the first interface.
    pub(crate) classes: [u64; CLASS_WORDS],
}

impl Counts {
    /// What has happened since `earlier`.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        let mut change = self.clone();
        change.words.iter_mut().zip(earlier.words).for_each(|(now, then)| *now = now.wrapping_sub(then));
        change.classes.iter_mut().zip(earlier.classes).for_each(|(now, then)| *now = now.wrapping_sub(then));
        change
    }

    /// A counter.
    pub(crate) const fn of(&self, counter: Counter) -> u64 {
        self.words[counter as usize]
    }

    /// Records there are, by the counters alone: what came less what went.
    pub(crate) fn live(&self) -> u64 {
        use Counter::{
            Attempts, EvictedClosed, EvictedCompleted, EvictedExpired, EvictedHalfOpen, EvictedMidstream,
            EvictedUdp, Midstream, UdpFlows,
        };
        let came = [Attempts, Midstream, UdpFlows].map(|counter| self.of(counter)).iter().sum::<u64>();
        let went =
            [EvictedExpired, EvictedClosed, EvictedMidstream, EvictedUdp, EvictedHalfOpen, EvictedCompleted];
        came.saturating_sub(went.map(|counter| self.of(counter)).iter().sum())
    }

    /// Every packet was of this class: so many, and not one of another.
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

    /// Of the counters exactly these moved, each by so much. The block's own markers may.
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

    fn counts() -> Counts {
        Counts { words: [0; COUNTERS], classes: [0; CLASS_WORDS] }
    }

    #[test]
    fn the_wrong_class_is_told() {
        let mut change = counts();
        change.classes[class_index(Class::Ack as u8, Family::V4 as u8)] = 10;
        assert!(change.ensure_class(Class::Ack, Some(Family::V4), 10).is_ok());
        assert!(change.ensure_class(Class::Ack, Some(Family::V4), 11).is_err());
        assert!(change.ensure_class(Class::Ack, Some(Family::V6), 10).is_err());
        change.classes[class_index(Class::Truncated as u8, Family::V4 as u8)] = 1;
        assert!(change.ensure_class(Class::Ack, Some(Family::V4), 10).is_err(), "and one of another");
    }

    #[test]
    fn a_counter_that_was_not_meant_to_move_is_told() {
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
    fn gauges_that_fell_are_differences_too() {
        let (mut before, mut after) = (counts(), counts());
        before.words[Counter::OpenNoAck as usize] = 3;
        after.words[Counter::OpenNoAck as usize] = 2;
        assert_eq!(after.since(&before).of(Counter::OpenNoAck), u64::MAX);
    }
}
