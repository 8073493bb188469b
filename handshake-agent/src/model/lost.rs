//! Segments that came into this host and did not leave it: on a router, where both sides are watched.

use std::fmt;

use crate::model::context::Origin;
use crate::source::scan::LostHere;

/// Attempts that lost the same segment between the same interfaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostBetween {
    /// `SYNs` or `SYN+ACKs`.
    pub what: &'static str,
    /// How many attempts.
    pub count: u64,
    /// The interface that it came in by.
    pub from: String,
    /// The one that it ought to have left by; `None` where that is not known.
    pub to: Option<String>,
}

impl LostBetween {
    /// The most frequent. With one group of interfaces nothing is known: a segment may leave by one that is not
    /// watched.
    pub(super) fn of(lost: &LostHere, origin: &Origin) -> Option<Self> {
        let Origin::Live(live) = origin else { return None };
        let groups = live.groups.len();
        let name = |group: usize| live.groups.get(group).cloned().flatten();
        let named: Vec<usize> = (0..groups).filter(|group| name(*group).is_some()).collect();
        if named.len() < 2 {
            return None;
        }
        let other = |from: usize| {
            let mut others = named.iter().filter(|group| **group != from);
            others.next().filter(|_| named.len() == 2).and_then(|group| name(*group))
        };
        let syns =
            (0..groups).map(|from| (lost.syns.get(from).copied().unwrap_or(0), "SYNs", from, other(from)));
        let pairs = (0..groups).flat_map(|from| (0..groups).map(move |to| (from, to)));
        let syn_acks = pairs.map(|(from, to)| {
            let count = lost.syn_acks.get(from).and_then(|row| row.get(to)).copied().unwrap_or(0);
            (count, "SYN+ACKs", from, name(to))
        });
        let (count, what, from, to) = syns.chain(syn_acks).max_by_key(|(count, ..)| *count)?;
        Some(Self { what, count, from: name(from)?, to }).filter(|lost| lost.count != 0)
    }
}

impl fmt::Display for LostBetween {
    /// `81 SYN+ACKs came in by srv0 and did not leave by cli0`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let to = self.to.as_deref().unwrap_or("any other interface that is watched");
        write!(f, "{} {} came in by {} and did not leave by {to}", self.count, self.what, self.from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::context::LiveOrigin;

    fn origin(names: &[&str]) -> Origin {
        let groups = names.iter().map(|name| Some((*name).to_owned())).collect();
        Origin::Live(LiveOrigin { groups, ..LiveOrigin::default() })
    }

    #[test]
    fn what_most_attempts_have_lost_is_named_with_its_interfaces() {
        let mut lost = LostHere::default();
        let both = origin(&["cli0", "srv0"]);
        assert_eq!(LostBetween::of(&lost, &both), None);
        lost.syns[0] = 3;
        let words = |lost: &LostHere, origin| LostBetween::of(lost, origin).map(|lost| lost.to_string());
        assert_eq!(words(&lost, &both).as_deref(), Some("3 SYNs came in by cli0 and did not leave by srv0"));
        let three = origin(&["cli0", "srv0", "eth0"]);
        let any = "3 SYNs came in by cli0 and did not leave by any other interface that is watched";
        assert_eq!(words(&lost, &three).as_deref(), Some(any));
        lost.syn_acks[1][0] = 81;
        let returned = "81 SYN+ACKs came in by srv0 and did not leave by cli0";
        assert_eq!(words(&lost, &three).as_deref(), Some(returned));
        assert_eq!(words(&lost, &origin(&["srv0"])), None, "it may leave by one that is not watched");
    }
}
