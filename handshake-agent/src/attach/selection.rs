//! Which interfaces are to be watched: names, patterns, and names that are not there yet.

use glob::Pattern;

use super::interface::{InterfaceInfo, closest, default_routes, known_by_driver, list};
use crate::error::Error;
use crate::options::InterfaceChoice;

/// The word for every interface, loopback included, as tcpdump(1) has it.
pub const ANY: &str = "any";

/// The interfaces that a run is to watch, now and later.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    wanted: Vec<Wanted>,
    /// Whether a name may be missing.
    waits: bool,
}

/// One `-i`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Wanted {
    name: String,
    /// `None`: the name is meant as it is.
    pattern: Option<Pattern>,
}

impl Wanted {
    /// A name may hold the characters of a pattern, and is then meant as it is too.
    fn is(&self, info: &InterfaceInfo) -> bool {
        info.is_called(&self.name)
            || self.pattern.as_ref().is_some_and(|pattern| {
                pattern.matches(&info.name) || info.alternatives.iter().any(|name| pattern.matches(name))
            })
    }
}

/// What is asked of an interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Demand {
    /// It was named: without it the run lacks something.
    #[default]
    Required,
    /// A pattern matches it, or it may be missing.
    Welcome,
}

impl Selection {
    /// The selection of these options. The pattern of a name that is none, like `[`, matches nothing else.
    #[must_use]
    pub fn of(choice: &InterfaceChoice) -> Self {
        let wanted = |name: &String| Wanted { name: name.clone(), pattern: pattern(name) };
        Self { wanted: choice.names.iter().map(wanted).collect(), waits: choice.wait }
    }

    /// These interfaces and no others.
    #[must_use]
    pub fn named(names: impl IntoIterator<Item = String>) -> Self {
        Self::of(&InterfaceChoice { names: names.into_iter().collect(), wait: false })
    }

    /// What is asked of an interface; `None` if it is not wanted.
    #[must_use]
    pub fn demand(&self, info: &InterfaceInfo) -> Option<Demand> {
        let required = |wanted: &Wanted| !self.waits && info.is_called(&wanted.name);
        if self.wanted.iter().any(required) {
            Some(Demand::Required)
        } else if self.wanted.iter().any(|wanted| wanted.is(info)) {
            Some(Demand::Welcome)
        } else {
            None
        }
    }

    /// The wanted ones of these interfaces, each once and in the order of the options.
    #[must_use]
    pub fn choose(&self, all: &[InterfaceInfo]) -> Vec<InterfaceInfo> {
        let mut chosen: Vec<InterfaceInfo> = Vec::new();
        for wanted in &self.wanted {
            for info in all.iter().filter(|info| wanted.is(info)) {
                if chosen.iter().all(|known| known.index != info.index) {
                    chosen.push(info.clone());
                }
            }
        }
        chosen
    }

    /// The first name that must be there and is not.
    #[must_use]
    pub fn missing<'a>(&'a self, all: &[InterfaceInfo]) -> Option<&'a str> {
        let is_missing = |wanted: &&Wanted| {
            wanted.pattern.is_none() && !all.iter().any(|info| info.is_called(&wanted.name))
        };
        self.wanted.iter().filter(|_| !self.waits).find(is_missing).map(|wanted| wanted.name.as_str())
    }

    /// Whether interfaces may come that are not there yet: a run without any waits for them.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.waits || self.wanted.iter().any(|wanted| wanted.pattern.is_some())
    }

    /// The error where none is there that it chooses.
    #[must_use]
    pub fn nothing(&self) -> Error {
        let wanted: Vec<&str> = self.wanted.iter().map(|wanted| wanted.name.as_str()).collect();
        match list() {
            Ok(all) => Error::NoInterface {
                words: wanted.join(", "),
                there: all.into_iter().map(|info| info.name).collect(),
            },
            Err(error) => error,
        }
    }
}

/// The requested interfaces that are there, each once and in the requested order, with the selection that
/// they are of; those of the default routes if none is requested.
///
/// # Errors
///
/// [`Error::UnknownInterface`] if a name must be there and is not, [`Error::NoDefaultRoute`], and
/// [`Error::System`] if the kernel does not answer.
pub fn select(choice: &InterfaceChoice) -> Result<(Selection, Vec<InterfaceInfo>), Error> {
    let all = list()?;
    let selection = if choice.names.is_empty() { by_default_routes(&all)? } else { Selection::of(choice) };
    if let Some(name) = selection.missing(&all) {
        return Err(Error::UnknownInterface { name: name.to_owned(), close: closest(&all, name) });
    }
    let chosen = selection.choose(&all).into_iter().map(known_by_driver).collect();
    Ok((selection, chosen))
}

/// The interface with this name.
///
/// # Errors
///
/// As [`select`].
#[cfg(any(test, feature = "testing"))]
pub fn named(name: &str) -> Result<InterfaceInfo, Error> {
    let choice = InterfaceChoice { names: vec![name.to_owned()], wait: false };
    select(&choice).map(|(_, mut chosen)| chosen.remove(0))
}

fn by_default_routes(all: &[InterfaceInfo]) -> Result<Selection, Error> {
    let indexes = default_routes().map_err(|r| Error::system("read the default routes")(r.into()))?;
    let name = |index: &u32| all.iter().find(|info| info.index == *index).map(|info| info.name.clone());
    let names: Vec<String> = indexes.iter().filter_map(name).collect();
    if names.is_empty() {
        return Err(Error::NoDefaultRoute(all.iter().map(|info| info.name.clone()).collect()));
    }
    Ok(Selection::named(names))
}

fn pattern(name: &str) -> Option<Pattern> {
    if name == ANY {
        return Pattern::new("*").ok();
    }
    name.contains(['*', '?', '[']).then(|| Pattern::new(name).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use Demand::{Required, Welcome};

    fn all(names: &[&str]) -> Vec<InterfaceInfo> {
        let one = |(index, name): (u32, &&str)| InterfaceInfo {
            name: (*name).to_owned(),
            alternatives: vec![format!("alt-{name}")],
            index,
            ..InterfaceInfo::default()
        };
        (1..).zip(names).map(one).collect()
    }

    fn selection(names: &[&str], wait: bool) -> Selection {
        Selection::of(&InterfaceChoice { names: names.iter().map(|name| (*name).to_owned()).collect(), wait })
    }

    #[test]
    fn names_and_patterns_choose_in_their_order_and_each_once() {
        let all = all(&["lo", "eth0", "veth2", "veth1", "cali7", "a*b", "x[1]"]);
        let table: [(&[&str], &[&str]); 9] = [
            (&["eth0"], &["eth0"]),
            (&["veth*"], &["veth2", "veth1"]),
            (&["veth?", "veth1"], &["veth2", "veth1"]),
            (&["veth1", "veth*"], &["veth1", "veth2"]),
            (&["veth[13]"], &["veth1"]),
            (&["[!vlax]*"], &["eth0", "cali7"]),
            (&["any"], &["lo", "eth0", "veth2", "veth1", "cali7", "a*b", "x[1]"]),
            (&["alt-c*", "a*b"], &["cali7", "a*b"]),
            (&["x[1]"], &["x[1]"]),
        ];
        for (names, expected) in table {
            let chosen = selection(names, false).choose(&all);
            assert_eq!(
                chosen.iter().map(|info| info.name.as_str()).collect::<Vec<_>>(),
                expected,
                "{names:?}"
            );
        }
    }

    #[test]
    fn a_name_must_be_there_unless_the_run_waits() {
        let all = all(&["eth0", "veth1"]);
        let table: [(&[&str], bool, Option<&str>, bool); 7] = [
            (&["eth0"], false, None, false),
            (&["eth0", "tun0"], false, Some("tun0"), false),
            (&["tun0"], true, None, true),
            (&["wg*"], false, None, true),
            (&["wg*", "tun0"], false, Some("tun0"), true),
            (&["any"], false, None, true),
            (&["alt-eth0"], false, None, false),
        ];
        for (names, wait, missing, open) in table {
            let selection = selection(names, wait);
            assert_eq!((selection.missing(&all), selection.is_open()), (missing, open), "{names:?}");
        }
    }

    #[test]
    fn what_is_asked_of_an_interface() {
        let all = all(&["eth0", "veth1", "lo"]);
        for (names, wait, expected) in [
            (&["eth0", "v*"], false, [Some(Required), Some(Welcome), None]),
            (&["eth0", "v*"], true, [Some(Welcome), Some(Welcome), None]),
            (&["any", "veth1"], false, [Some(Welcome), Some(Required), Some(Welcome)]),
        ] {
            let selection = selection(names, wait);
            let demands: Vec<_> = all.iter().map(|info| selection.demand(info)).collect();
            assert_eq!(demands, expected, "{names:?}");
        }
    }
}
