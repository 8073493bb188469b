//! The clocks of a comparison, for both sides.

use std::time::Instant;

use super::generate::Random;
use super::*;

/// Both clocks: the test's, with jumps across every deadline and backwards, or real ones.
pub(super) struct Time {
    now: ClockPair,
    clocks: Clocks,
    /// The time that was last set for the programs.
    last_set: Option<ClockPair>,
    begun: Option<Instant>,
}

const TICK_NS: u64 = 4_000_000;

impl Time {
    /// The jiffies start as the kernel's do, shortly before 2³²; the other clock stays below 2⁶³.
    pub(super) fn new(test_clock: bool, clocks: Clocks) -> Self {
        let now = ClockPair { now_ns: 500_000_000_000, jiffies: (1 << 32) - 75_000 };
        Self { now, clocks, last_set: None, begun: (!test_clock).then(Instant::now) }
    }

    /// Advances the clocks. Returns the time of the next packet.
    pub(super) fn pass(&mut self, random: &mut Random) -> Now {
        if let Some(begun) = self.begun {
            let ns = u64::try_from(begun.elapsed().as_nanos()).expect("a short test");
            self.now = ClockPair { now_ns: ns, jiffies: ns / TICK_NS };
        } else if random.one_in(2) {
            self.jump(random);
        }
        Now { ns: self.now.now_ns, jiffies: low_half(self.now.jiffies) }
    }

    fn jump(&mut self, random: &mut Random) {
        let idle = [self.clocks.udp_idle_jiffies, self.clocks.idle_after_jiffies];
        let [udp_idle, idle_after] = idle.map(|jiffies| u64::from(jiffies) * TICK_NS);
        let deadlines = [self.clocks.half_open_after_ns, self.clocks.expire_after_ns, udp_idle, idle_after];
        let deadline = random.pick(&deadlines).cast_signed();
        let tick = TICK_NS.cast_signed();
        let (ns, jiffies) = match random.below(800) {
            0 => (deadline + random.pick(&[-1, 0, 1, tick]), deadline / tick + random.pick(&[0, 1])),
            1 => (deadline / 2, deadline / tick / 2),
            // Another CPU's clock may be behind, and a capture's may jump anywhere.
            2 => (-deadline, -deadline / tick),
            3 => (deadline, 0),
            4 => (0, deadline / tick + 1),
            5 => (1 << 40, 1 << 20),
            _ => (random.pick(&[0, 1, 63, 64, 2_999_999]), random.pick(&[0, 0, 0, 1])),
        };
        self.now.now_ns = self.now.now_ns.wrapping_add_signed(ns) & (u64::MAX >> 1);
        self.now.jiffies = self.now.jiffies.wrapping_add_signed(jiffies);
    }

    /// Sets the time of the programs.
    pub(super) fn set(&mut self, live: &mut Live) {
        let stands = self.last_set.is_some_and(|last_set| {
            last_set.now_ns == self.now.now_ns && last_set.jiffies == self.now.jiffies
        });
        if self.begun.is_none() && !stands {
            live.set_test_clock(self.now).expect("a clock that is not frozen");
            self.last_set = Some(self.now);
        }
    }

    pub(super) const fn now(&self) -> ClockPair {
        self.now
    }
}
