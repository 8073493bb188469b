//! What the firewall of this host counted meanwhile, and whether it can explain what failed. Pure.
//!
//! A counter is of all packets that a rule matched, of any connection: it explains, and does not prove. That
//! none rose proves nothing: a rule without a counter drops in silence.

use std::fmt;
use std::net::SocketAddr;

use handshake_agent::nftables::{CountedRule, Deed};

use super::Conntrack;
use crate::number::{group, span};

/// So many counts are named.
const MOST: usize = 3;

/// A rule whose counter rose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Risen {
    /// The rule.
    pub(crate) rule: CountedRule,
    /// By so many packets.
    pub(crate) packets: u64,
}

/// What the rules and connection tracking counted in a time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Firewall {
    /// The rules whose counters rose, and that may meet the service's handshakes; the most packets first.
    pub(crate) risen: Vec<Risen>,
    /// `None` where the kernel tells nothing.
    pub(crate) conntrack: Option<Conntrack>,
}

/// What of it explains a failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Explanation {
    /// A sentence for each count.
    pub(super) because: Vec<String>,
    /// The rules among them.
    pub(super) rules: Vec<Risen>,
    /// To what the first of them points.
    pub(super) suspect: String,
    /// The commands that show or change it.
    pub(super) next: Vec<String>,
}

impl Firewall {
    /// From two readings of the rules. One that was made meanwhile is left out: it may have been made with a
    /// count.
    pub(crate) fn between(
        before: &[CountedRule],
        after: &[CountedRule],
        service: Option<SocketAddr>,
        conntrack: Option<Conntrack>,
    ) -> Self {
        let risen = after.iter().filter(|rule| rule.may_concern(service)).filter_map(|rule| {
            let earlier = before.iter().find(|before| before.is_same(rule))?;
            let packets = rule.packets.checked_sub(earlier.packets).filter(|packets| *packets != 0)?;
            Some(Risen { rule: rule.clone(), packets })
        });
        let mut risen: Vec<_> = risen.collect();
        risen.sort_by_key(|risen| std::cmp::Reverse(risen.packets));
        Self { risen, conntrack }
    }

    /// What explains that `failed` attempts met one of these deeds in `looked_ns`: what counted at least half as
    /// many packets.
    pub(super) fn explains(&self, failed: u64, deeds: &[Deed], looked_ns: u64) -> Option<Explanation> {
        let is_enough = |packets: u64| packets.saturating_mul(2) >= failed.max(1);
        let full = self
            .conntrack
            .filter(|seen| deeds.contains(&Deed::Drop) && seen.was_full() && is_enough(seen.dropped.into()));
        let full = full.map(|seen| Explanation {
            because: vec![format!(
                "the connection tracking table is full: {} of {}, +{} dropped in {}",
                group(seen.entries),
                group(seen.limit),
                group(seen.dropped.into()),
                span(looked_ns)
            )],
            rules: Vec::new(),
            suspect: "its connection tracking, which has no room".to_owned(),
            next: vec![
                format!("sysctl -w net.netfilter.nf_conntrack_max={}", seen.limit.saturating_mul(2)),
                "conntrack -S".to_owned(),
            ],
        });
        let can = |risen: &&Risen| deeds.contains(&risen.rule.deed) && is_enough(risen.packets);
        let by_rule = self.risen.iter().filter(can).map(|risen| {
            let rule = &risen.rule;
            Explanation {
                because: vec![format!("{risen} in {}, of any connection", span(looked_ns))],
                rules: vec![risen.clone()],
                suspect: rule.to_string(),
                next: vec![format!("nft -a list chain {} {} {}", rule.family(), rule.table, rule.chain)],
            }
        });
        full.into_iter().chain(by_rule).take(MOST).reduce(|mut first, other| {
            first.because.extend(other.because);
            first.rules.extend(other.rules);
            first
                .next
                .extend(other.next.into_iter().filter(|next| !first.next.contains(next)).collect::<Vec<_>>());
            first
        })
    }
}

impl fmt::Display for Risen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (rule, packets) = (&self.rule, group(self.packets));
        write!(f, "{rule} {}: +{packets} packets", rule.deed.verb())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn between(before: &[CountedRule], after: &[CountedRule]) -> Vec<u64> {
        let service = Some("10.0.0.2:443".parse().expect("an address"));
        let seen = Firewall::between(before, after, service, None);
        seen.risen.iter().map(|risen| risen.packets).collect()
    }

    #[test]
    fn only_what_rose_and_may_meet_the_service_counts() {
        let rule = |handle, packets| CountedRule::of(Some(handle), Deed::Drop, packets, Some(443));
        let before =
            [rule(1, 100), rule(2, 7), rule(3, 7), CountedRule::of(Some(4), Deed::Drop, 0, Some(80))];
        let after = [
            rule(1, 130),
            rule(2, 7),
            // It was set back.
            rule(3, 1),
            CountedRule::of(Some(4), Deed::Drop, 50, Some(80)),
            // It was made meanwhile.
            rule(5, 60),
            CountedRule::of(None, Deed::Drop, 40, None),
        ];
        assert_eq!(between(&before, &after), [30]);
        let policy = CountedRule::of(None, Deed::Drop, 5, None);
        assert_eq!(between(&[&before[..], &[policy]].concat(), &after), [35, 30]);
    }

    fn risen(deed: Deed, packets: u64) -> Risen {
        Risen { rule: CountedRule::of(Some(packets), deed, 1_000, None), packets }
    }

    #[test]
    fn what_counted_half_as_many_explains() {
        let seen = |packets| Firewall { risen: vec![risen(Deed::Drop, packets)], conntrack: None };
        let explains = |packets, deeds: &[Deed]| seen(packets).explains(30, deeds, 2_000_000_000);
        let found = explains(15, &[Deed::Drop]).expect("it is half");
        assert_eq!(
            found.because,
            ["the rule inet t c handle 15 drops: +15 packets in 2 s, of any connection"]
        );
        assert_eq!(explains(14, &[Deed::Drop]), None);
        assert_eq!(explains(30, &[Deed::Reset]), None);
        let many = Firewall {
            risen: (20..30).map(|packets| risen(Deed::Reject, packets)).collect(),
            conntrack: None,
        };
        let found = many.explains(30, &[Deed::Drop, Deed::Reject], 1).expect("they are enough");
        assert_eq!((found.rules.len(), found.because.len(), found.next.len()), (MOST, MOST, 1));
    }

    #[test]
    fn a_full_table_explains_where_it_dropped_enough() {
        let full = Conntrack { entries: 262_144, limit: 262_144, dropped: 41, ..Conntrack::default() };
        let explains = |conntrack, deeds: &[Deed]| {
            let seen = Firewall { risen: vec![risen(Deed::Drop, 60)], conntrack: Some(conntrack) };
            seen.explains(60, deeds, 10_000_000_000)
        };
        let found = explains(full, &[Deed::Drop]).expect("it is full");
        assert_eq!(
            found.because[0],
            "the connection tracking table is full: 262 144 of 262 144, +41 dropped in 10 s"
        );
        assert_eq!(found.because.len(), 2, "the rule is told too");
        assert_eq!(found.next[0], "sysctl -w net.netfilter.nf_conntrack_max=524288");
        for (other, deeds) in [
            (Conntrack { dropped: 29, ..full }, &[Deed::Drop]),
            (Conntrack { entries: 262_143, ..full }, &[Deed::Drop]),
        ] {
            let found = explains(other, deeds).expect("the rule rose");
            assert!(!found.suspect.contains("tracking"), "{other:?}");
        }
        assert_eq!(explains(full, &[Deed::Reset]), None, "it refuses nothing");
    }
}
