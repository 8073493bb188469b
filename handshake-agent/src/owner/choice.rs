//! A choice among owners, as an operator writes it: `unit` and `nginx.service`, `pod` and `shop/web-1`.

use std::fmt;

use super::place::is_unit;
use super::{Container, Owner, Pod};

/// What an owner is chosen by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnerKind {
    /// The unit of systemd.
    Unit,
    /// The pod: its name, `NAMESPACE/NAME` or its UID.
    Pod,
    /// The container: its name, or the first twelve digits of its id or more.
    Container,
    /// The path of the control group, or of one above it.
    Cgroup,
}

/// The digits of a container's id that are shown in place of a name.
const SHORT_ID: usize = 12;

impl OwnerKind {
    /// All kinds.
    pub const ALL: [Self; 4] = [Self::Unit, Self::Pod, Self::Container, Self::Cgroup];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unit => "unit",
            Self::Pod => "pod",
            Self::Container => "container",
            Self::Cgroup => "cgroup",
        }
    }

    /// A value for the help.
    #[must_use]
    pub const fn example(self) -> &'static str {
        match self {
            Self::Unit => "nginx.service",
            Self::Pod => "web-1",
            Self::Container => "web",
            Self::Cgroup => "/system.slice",
        }
    }

    /// The kind of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// A choice among owners.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnerChoice {
    /// What it chooses by.
    pub kind: OwnerKind,
    value: String,
}

impl OwnerChoice {
    /// The owners of this kind with this value.
    ///
    /// # Errors
    ///
    /// No owner can have the value.
    pub fn new(kind: OwnerKind, value: &str) -> Result<Self, String> {
        let (name, example) = (kind.name(), kind.example());
        if value.is_empty() {
            return Err(format!("{name} has no value, as in {example}"));
        }
        match kind {
            OwnerKind::Unit if !is_unit(value) => {
                return Err(format!("'{value}' is no unit: its type belongs to it, as in {example}"));
            }
            OwnerKind::Cgroup if !value.starts_with('/') => {
                return Err(format!("'{value}' is no path of a control group, as in {example}"));
            }
            OwnerKind::Unit | OwnerKind::Pod | OwnerKind::Container | OwnerKind::Cgroup => {}
        }
        let value = if kind == OwnerKind::Cgroup { value.trim_end_matches('/') } else { value };
        Ok(Self { kind, value: value.to_owned() })
    }

    /// Whether it takes an owner. `None` where that is not known: a container or a pod without a known name may
    /// be any.
    #[must_use]
    pub fn takes(&self, owner: &Owner) -> Option<bool> {
        let value = self.value.as_str();
        match self.kind {
            OwnerKind::Unit => Some(owner.unit.as_deref() == Some(value)),
            OwnerKind::Pod => owner.pod.as_ref().map_or(Some(false), |pod| takes_pod(value, pod)),
            OwnerKind::Container => {
                owner.container.as_ref().map_or(Some(false), |container| takes_container(value, container))
            }
            OwnerKind::Cgroup => {
                let below = owner.cgroup.strip_prefix(value);
                Some(below.is_some_and(|below| below.is_empty() || below.starts_with('/')))
            }
        }
    }
}

fn takes_pod(value: &str, pod: &Pod) -> Option<bool> {
    if pod.uid == value {
        return Some(true);
    }
    let name = pod.name.as_ref()?;
    Some(match value.split_once('/') {
        Some((namespace, value)) => name.namespace == namespace && name.name == value,
        None => name.name == value,
    })
}

fn takes_container(value: &str, container: &Container) -> Option<bool> {
    if value.len() >= SHORT_ID && container.id.starts_with(value) {
        return Some(true);
    }
    Some(container.name.as_ref()? == value)
}

impl fmt::Display for OwnerChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // That of the root is empty without its slash.
        f.write_str(if self.value.is_empty() { "/" } else { &self.value })
    }
}

#[cfg(test)]
mod tests {
    use super::{OwnerChoice, OwnerKind};
    use crate::owner::{Container, Owner, Pod, PodName};

    fn owner(cgroup: &str, is_named: bool) -> Owner {
        let name = || PodName { name: "web-1".to_owned(), namespace: "shop".to_owned() };
        let id = "0123456789abcdef".repeat(4);
        Owner {
            cgroup: cgroup.to_owned(),
            unit: Some("nginx.service".to_owned()),
            container: Some(Container { id, runtime: None, name: is_named.then(|| "web".to_owned()) }),
            pod: Some(Pod { uid: "u-1".to_owned(), name: is_named.then(name) }),
        }
    }

    #[test]
    fn an_owner_is_chosen_by_each_kind() {
        let (named, unnamed) = (owner("/system.slice/nginx.service", true), owner("/system.slice/x", false));
        let bare = Owner { unit: None, container: None, pod: None, ..owner("/system.slicer", true) };
        let (yes, no) = (Some(true), Some(false));
        let table = [
            (OwnerKind::Unit, "nginx.service", [yes, yes, no]),
            (OwnerKind::Unit, "nginx.socket", [no, no, no]),
            (OwnerKind::Pod, "web-1", [yes, None, no]),
            (OwnerKind::Pod, "shop/web-1", [yes, None, no]),
            (OwnerKind::Pod, "shop/web-2", [no, None, no]),
            (OwnerKind::Pod, "test/web-1", [no, None, no]),
            (OwnerKind::Pod, "u-1", [yes, yes, no]),
            (OwnerKind::Container, "web", [yes, None, no]),
            (OwnerKind::Container, "we", [no, None, no]),
            (OwnerKind::Container, "0123456789ab", [yes, yes, no]),
            (OwnerKind::Container, "0123456789a", [no, None, no]),
            (OwnerKind::Cgroup, "/system.slice", [yes, yes, no]),
            (OwnerKind::Cgroup, "/system.slice/x/", [no, yes, no]),
            (OwnerKind::Cgroup, "/", [yes, yes, yes]),
        ];
        for (kind, value, expected) in table {
            let choice = OwnerChoice::new(kind, value).expect(value);
            assert_eq!(
                [&named, &unnamed, &bare].map(|owner| choice.takes(owner)),
                expected,
                "{kind:?} {value}"
            );
        }
        for (kind, value) in [
            (OwnerKind::Unit, "nginx"),
            (OwnerKind::Unit, ".service"),
            (OwnerKind::Cgroup, "x"),
            (OwnerKind::Pod, ""),
        ] {
            assert!(OwnerChoice::new(kind, value).is_err(), "{value}");
        }
        let shown = |kind, value| OwnerChoice::new(kind, value).expect(value).to_string();
        assert_eq!(
            (shown(OwnerKind::Cgroup, "/"), shown(OwnerKind::Cgroup, "/a/")),
            ("/".into(), "/a".into())
        );
    }
}
