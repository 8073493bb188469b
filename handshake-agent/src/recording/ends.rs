//! The attempts that have ended since the latest block.

use super::LeftOut;
use crate::model::flow::Flow;

/// Ended attempts, those that failed apart.
#[derive(Debug, Default)]
pub struct Ends {
    failed: Vec<Flow>,
    others: Vec<Flow>,
    left_out: LeftOut,
}

impl Ends {
    /// Most of either kind.
    const MOST: usize = 2_000;

    /// Adds one.
    pub fn push(&mut self, attempt: Flow) {
        let is_good = attempt.ended.is_some_and(|end| end.standing.is_good());
        let LeftOut { failed, ended, .. } = &mut self.left_out;
        let (kept, left_out) = if is_good { (&mut self.others, ended) } else { (&mut self.failed, failed) };
        if kept.len() < Self::MOST {
            kept.push(attempt);
        } else {
            *left_out += 1;
        }
    }

    /// The first of them, as many as there is room for and failures first, in the order in which they ended; and
    /// how many are left out.
    pub(super) fn within(self, room: usize) -> (Vec<Flow>, LeftOut) {
        let Self { failed, others, mut left_out } = self;
        let (had, failures) = (failed.len() + others.len(), failed.len());
        let mut kept = failed;
        kept.truncate(room);
        left_out.failed += (failures - kept.len()) as u64;
        let room = room - kept.len();
        left_out.ended += (had - failures).saturating_sub(room) as u64;
        kept.extend(others.into_iter().take(room));
        kept.sort_by_key(Flow::moment_ns);
        (kept, left_out)
    }
}
