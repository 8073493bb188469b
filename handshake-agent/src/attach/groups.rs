//! Gives each interface its group: a record has room for seven. The interfaces of a group are one place to
//! the rules of copies and repeats, so what passes two of them in the same direction must not be the same
//! segment.
//!
//! Seven interfaces have a group each. Where there are more, or more may come, the last two groups are
//! shared: one by interfaces that stand on top of others, as a bridge does, and one by all the rest. A
//! segment that enters by a port and passes the bridge above it is then seen at two places, as it should be.

use handshake_common::interface::GROUPS;

use super::interface::InterfaceInfo;

/// The group that is shared by interfaces on top of others.
const UPPER: usize = GROUPS - 2;
/// The group that is shared by the rest.
const LOWER: usize = GROUPS - 1;
/// Interfaces that hand on what passes an interface below them, by the kinds of ip-link(8).
const UPPER_KINDS: [&str; 13] = [
    "bridge",
    "bond",
    "team",
    "vlan",
    "vrf",
    "macvlan",
    "macvtap",
    "ipvlan",
    "ipvtap",
    "macsec",
    "hsr",
    "batadv",
    "openvswitch",
];

/// Who has which group.
#[derive(Clone, Debug, Default)]
pub(super) struct Groups {
    members: [Members; GROUPS],
    /// Whether each of the seven may belong to one interface alone.
    has_few: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Members {
    /// It was never given to anything.
    #[default]
    None,
    /// The one interface that it was given to.
    One(String),
    /// Records of the group do not tell which interface it was.
    Several,
}

impl Groups {
    /// `has_few`: no more interfaces come than there are groups.
    pub(super) fn new(has_few: bool) -> Self {
        Self { has_few, ..Self::default() }
    }

    /// The group of an interface, which keeps it when it comes back.
    pub(super) fn take(&mut self, info: &InterfaceInfo) -> u8 {
        let is_own = |members: &Members| matches!(members, Members::One(name) if *name == info.name);
        let free = if self.has_few { GROUPS } else { UPPER };
        let own = self.members.iter().position(is_own);
        let own = own.or_else(|| self.members[..free].iter().position(|members| *members == Members::None));
        let is_upper = info.kind.as_deref().is_some_and(|kind| UPPER_KINDS.contains(&kind));
        let group = own.unwrap_or(if is_upper { UPPER } else { LOWER });
        let members = &mut self.members[group];
        *members = match members {
            Members::None => Members::One(info.name.clone()),
            Members::One(name) if *name == info.name => Members::One(info.name.clone()),
            Members::One(_) | Members::Several => Members::Several,
        };
        u8::try_from(group).unwrap_or_default()
    }

    /// Follows a change of name.
    pub(super) fn rename(&mut self, old: &str, new: &str) {
        for members in &mut self.members {
            if matches!(members, Members::One(name) if name == old) {
                *members = Members::One(new.to_owned());
            }
        }
    }

    /// The names of the groups that are one interface's.
    pub(super) fn names(&self) -> Vec<Option<String>> {
        let name = |members: &Members| match members {
            Members::One(name) => Some(name.clone()),
            Members::None | Members::Several => None,
        };
        self.members.iter().map(name).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(groups: &mut Groups, name: &str, kind: &str) -> u8 {
        let kind = Some(kind.to_owned()).filter(|kind| !kind.is_empty());
        groups.take(&InterfaceInfo { name: name.to_owned(), kind, ..InterfaceInfo::default() })
    }

    #[test]
    fn seven_interfaces_have_a_group_each() {
        let mut groups = Groups::new(true);
        let names = ["a", "b", "c", "d", "e", "f", "g"];
        let taken: Vec<u8> = names.iter().map(|name| take(&mut groups, name, "bridge")).collect();
        assert_eq!(taken, [0, 1, 2, 3, 4, 5, 6]);
        assert_eq!(groups.names(), names.map(|name| Some(name.to_owned())));
        assert_eq!(take(&mut groups, "c", ""), 2, "it comes back");
    }

    #[test]
    fn where_more_come_ports_and_what_is_above_them_are_two_places() {
        let mut groups = Groups::new(false);
        let own: Vec<u8> = ["a", "b", "c", "d", "e"].iter().map(|name| take(&mut groups, name, "")).collect();
        assert_eq!(own, [0, 1, 2, 3, 4]);
        let shared =
            [("v1", "veth"), ("br0", "bridge"), ("v2", "veth"), ("wg0", "wireguard"), ("b0", "bond")];
        let shared: Vec<u8> = shared.iter().map(|(name, kind)| take(&mut groups, name, kind)).collect();
        assert_eq!(shared, [6, 5, 6, 6, 5]);
        assert_eq!(groups.names()[4..], [Some("e".to_owned()), None, None]);
    }

    #[test]
    fn a_group_of_one_keeps_its_name_and_follows_it() {
        let mut groups = Groups::new(false);
        take(&mut groups, "a", "");
        groups.rename("a", "z");
        assert_eq!(groups.names()[0].as_deref(), Some("z"));
        assert_eq!((take(&mut groups, "z", ""), take(&mut groups, "a", "")), (0, 1));
        assert_eq!(groups.names()[1].as_deref(), Some("a"));
    }
}
