//! Shortens the pauses in a capture. Pure: takes and returns times.

/// Maps capture times so that consecutive packets are at most a limit apart; shorter gaps stay unchanged. The
/// first packet keeps its time.
///
/// Steps back in time (mirror ports reorder) are kept and bounded by the same limit, so one wrong time stamp
/// shifts no other packet.
#[derive(Clone, Debug)]
pub struct Squeeze {
    limit_ns: u64,
    previous: Option<PauseStep>,
}

/// A packet's time as captured and as mapped.
#[derive(Clone, Copy, Debug)]
struct PauseStep {
    captured_ns: u64,
    mapped_ns: u64,
}

impl Squeeze {
    /// Gaps longer than `limit_ns` become `limit_ns`.
    pub const fn new(limit_ns: u64) -> Self {
        Self { limit_ns, previous: None }
    }

    /// The mapped time of the next packet in the file's order, ns.
    pub fn map(&mut self, captured_ns: u64) -> u64 {
        let mapped_ns = match self.previous {
            None => captured_ns,
            Some(previous) => previous.follow(captured_ns, self.limit_ns),
        };
        self.previous = Some(PauseStep { captured_ns, mapped_ns });
        mapped_ns
    }
}

impl PauseStep {
    fn follow(self, captured_ns: u64, limit_ns: u64) -> u64 {
        let gap_ns = captured_ns.abs_diff(self.captured_ns).min(limit_ns);
        if captured_ns >= self.captured_ns {
            self.mapped_ns.saturating_add(gap_ns)
        } else {
            self.mapped_ns.saturating_sub(gap_ns)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Squeeze;

    const SECOND: u64 = 1_000_000_000;

    fn mapped(limit_ns: u64, times: &[u64]) -> Vec<u64> {
        let mut squeeze = Squeeze::new(limit_ns);
        times.iter().map(|time| squeeze.map(*time)).collect()
    }

    #[test]
    fn long_gaps_become_the_limit_and_short_ones_stay() {
        let times = [100 * SECOND, 100 * SECOND + 7, 400 * SECOND, 400 * SECOND + 9, 401 * SECOND + 9];
        let want = [100 * SECOND, 100 * SECOND + 7, 101 * SECOND + 7, 101 * SECOND + 16, 102 * SECOND + 16];
        assert_eq!(mapped(SECOND, &times), want);
    }

    #[test]
    fn a_step_back_is_kept_and_one_wrong_time_shifts_no_other() {
        assert_eq!(mapped(SECOND, &[50, 60, 55, 61]), [50, 60, 55, 61]);
        let wrong = [10 * SECOND, 9_000 * SECOND, 10 * SECOND + 1, 10 * SECOND + 2];
        assert_eq!(mapped(SECOND, &wrong), [10 * SECOND, 11 * SECOND, 10 * SECOND, 10 * SECOND + 1]);
        assert_eq!(mapped(SECOND, &[5, u64::MAX, 0]), [5, SECOND + 5, 5]);
    }

    #[test]
    fn a_limit_of_zero_stops_the_clock() {
        assert_eq!(mapped(0, &[7, 8, 900]), [7, 7, 7]);
    }

    proptest! {
        #[test]
        fn order_is_kept_and_no_gap_exceeds_the_limit(
            limit in 0..=u64::MAX,
            mut times in prop::collection::vec(any::<u64>(), 1..50),
        ) {
            times.sort_unstable();
            let squeezed = mapped(limit, &times);
            for (before, after) in times.windows(2).zip(squeezed.windows(2)) {
                prop_assert_eq!(after[1] - after[0], (before[1] - before[0]).min(limit));
            }
        }
    }
}
