//! What the hooks could see: the looks at them, brought together over a run. Pure.

mod kept;

use std::io;

use crate::hook::{HookLook, HookState, InterfaceLook, LinkState};

/// The places that a sentence names at most.
const PLACES: usize = 4;

/// What the looks at the hooks found. A capture has no hooks, and nothing is found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sight {
    /// The interfaces at the latest look, in the order of the settings.
    pub interfaces: Vec<InterfaceLook>,
    /// Hooks that our program was not on, or was behind others on.
    pub hook_lost: Lapse,
    /// Interfaces that were down.
    pub interface_down: Lapse,
    /// The time of the latest look that every hook answered.
    answered_ns: Option<u64>,
}

/// What was found wrong, and when.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lapse {
    /// How often a look found it, by hook or interface.
    pub count: u64,
    /// Since when it may have been so, on the records' clock: the time of the last look that still found all
    /// well; that of the finding itself, if it was the first look.
    pub first_ns: u64,
    /// The time of the latest look that found it.
    pub last_ns: u64,
    /// The time of the latest look, whatever it found.
    looked_ns: u64,
    /// The latest finding by place, the latest place last.
    places: Vec<(String, Finding)>,
}

/// What looks found at a place.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Finding {
    /// The times of the first and the latest of the looks that found it, one after the other.
    from_ns: u64,
    at_ns: u64,
    /// The time of the look that did not find it any more.
    over_ns: Option<u64>,
    /// Whether it is that the interface went or came.
    is_of_interface: bool,
    /// The words for it while it lasts, and for when it is over.
    words: [String; 2],
}

impl Lapse {
    fn note(&mut self, since_ns: u64, place: String, is_of_interface: bool, words: impl Fn(Tense) -> String) {
        let at_ns = self.looked_ns;
        if self.count == 0 {
            self.first_ns = since_ns;
        }
        self.count += 1;
        self.last_ns = at_ns;
        let words = [words(Tense::Present), words(Tense::Past)];
        let known = self.places.iter().position(|(known, _)| *known == place);
        let known = known.map(|at| self.places.remove(at).1);
        let lasting = known.filter(|known| known.over_ns.is_none() && known.words == words);
        let from_ns = lasting.map_or(at_ns, |known| known.from_ns);
        self.places.push((place, Finding { from_ns, at_ns, over_ns: None, is_of_interface, words }));
        if self.places.len() > PLACES {
            self.places.remove(0);
        }
    }

    /// Notes which findings the look did not find any more.
    fn end_look(&mut self) {
        let over =
            self.places.iter_mut().map(|(_, found)| found).filter(|found| found.at_ns != self.looked_ns);
        over.for_each(|found| found.over_ns = found.over_ns.or(Some(self.looked_ns)));
    }

    /// What looks after this time have found, and what they have not found any more: a sentence each. That an
    /// interface went or came is not among it, because following it tells that.
    pub fn news_since(&self, ns: u64) -> impl Iterator<Item = &str> {
        let findings = self.places.iter().map(|(_, found)| found).filter(|found| !found.is_of_interface);
        findings.filter_map(move |found| {
            let [present, past] = &found.words;
            let is_over = found.over_ns.is_some_and(|over| over > ns);
            let words = if is_over { past } else { present };
            let is_new = found.from_ns > ns || is_over && present != past;
            is_new.then_some(words.as_str())
        })
    }

    /// Which places, and why; at most the latest four. What the latest look did not find is told as past.
    #[must_use]
    pub fn words(&self) -> String {
        let tense = |found: &Finding| usize::from(found.over_ns.is_some());
        let mut words: Vec<&str> =
            self.places.iter().map(|(_, found)| found.words[tense(found)].as_str()).collect();
        // Both hooks of an interface that is gone say the same, one after the other.
        words.dedup();
        words.join("; ")
    }
}

impl Sight {
    /// Adds a look at this time on the records' clock.
    pub fn note(&mut self, looks: Vec<InterfaceLook>, at_ns: u64) {
        let since_ns = self.answered_ns.unwrap_or(at_ns);
        (self.hook_lost.looked_ns, self.interface_down.looked_ns) = (at_ns, at_ns);
        for look in &looks {
            for hook in look.hooks.iter().filter(|hook| hook.is_lost()) {
                let place = format!("{} {}", look.name, hook.direction);
                let is_gone = matches!(look.state, LinkState::Gone | LinkState::Refused(_));
                let is_of_interface = is_gone || look.came_back;
                self.hook_lost.note(since_ns, place, is_of_interface, |tense| words(look, hook, tense));
            }
            if look.state == LinkState::Down && look.is_required {
                let words = |tense: Tense| format!("{} {} down", look.name, tense.is());
                self.interface_down.note(since_ns, look.name.clone(), false, words);
            }
        }
        self.hook_lost.end_look();
        self.interface_down.end_look();
        if looks.iter().all(InterfaceLook::is_answered) {
            self.answered_ns = Some(at_ns);
        }
        self.interfaces = looks;
    }

    /// The time of the latest look, on the records' clock.
    #[must_use]
    pub const fn looked_ns(&self) -> u64 {
        self.hook_lost.looked_ns
    }

    /// What kept packets from our programs at this time or later, on the records' clock.
    #[must_use]
    pub fn lapses_since(&self, ns: u64) -> Vec<String> {
        let lapses = [&self.hook_lost, &self.interface_down].into_iter();
        lapses.filter(|lapse| lapse.count != 0 && lapse.last_ns >= ns).map(Lapse::words).collect()
    }

    /// What keeps packets from our programs at the latest look, a sentence per interface or hook; of many
    /// the first four.
    #[must_use]
    pub fn obstacles(&self) -> Vec<String> {
        let mut all: Vec<String> = self.interfaces.iter().flat_map(obstacles).collect();
        let more = all.len().saturating_sub(PLACES);
        all.truncate(PLACES);
        all.extend((more > 0).then(|| format!("and {more} more")));
        all
    }
}

fn obstacles(look: &InterfaceLook) -> Vec<String> {
    let name = &look.name;
    match &look.state {
        LinkState::Gone => return vec![format!("{name} is gone")],
        LinkState::Unknown(why) => return vec![format!("{name} cannot be looked at: {why}")],
        LinkState::Refused(why) => return vec![format!("{name} is not watched: {why}")],
        LinkState::Up | LinkState::NoCarrier | LinkState::Down => {}
    }
    let lost =
        look.hooks.iter().filter(|hook| hook.stays_lost()).map(|hook| words(look, hook, Tense::Present));
    let state = match look.state {
        LinkState::Down => Some(format!("{name} is down")),
        LinkState::NoCarrier => Some(format!("{name} has no carrier")),
        LinkState::Up | LinkState::Gone | LinkState::Unknown(_) | LinkState::Refused(_) => None,
    };
    lost.chain(state.filter(|_| look.is_required)).collect()
}

/// Whether a finding lasts, or is over.
#[derive(Clone, Copy)]
enum Tense {
    Present,
    Past,
}

impl Tense {
    const fn is(self) -> &'static str {
        match self {
            Self::Present => "is",
            Self::Past => "was",
        }
    }
}

/// What is wrong with a hook, and what was done about it.
fn words(look: &InterfaceLook, hook: &HookLook, tense: Tense) -> String {
    let InterfaceLook { name, state, .. } = look;
    let place = format!("{name}: the {} hook ({})", hook.direction, hook.hook);
    let (is, cannot, may_keep) = match tense {
        Tense::Present => (tense.is(), "cannot", "may keep"),
        Tense::Past => (tense.is(), "could not", "may have kept"),
    };
    if let LinkState::Refused(why) = state {
        return format!("{name} {is} not watched: {why}");
    }
    match (&hook.state, &hook.again) {
        (HookState::Gone, _) if *state == LinkState::Gone => format!("{name} {is} gone"),
        (HookState::Gone, Some(Ok(()))) => format!("{place} was lost, and is attached again"),
        (HookState::Gone, Some(Err(why))) => {
            format!("{place} {is} lost, and attaching again {is} refused: {why}")
        }
        (HookState::Gone | HookState::Ours, _) => format!("{place} {is} lost"),
        (HookState::Behind(names), Some(Ok(()))) => {
            format!("{place} was behind {}, and is first again", names.join(", "))
        }
        (HookState::Behind(names), _) => {
            format!("{place} {is} behind {}, which {may_keep} packets from it", names.join(", "))
        }
        (HookState::Unknown(why), _) => format!("{place} {cannot} be looked at: {why}"),
        (HookState::Passing(errno), _) => {
            format!("{place} {cannot} be looked at: {}", io::Error::from_raw_os_error(*errno))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hook::{Direction, Hook};

    fn hook(direction: Direction, state: HookState, again: Option<Result<(), String>>) -> HookLook {
        HookLook { direction, hook: Hook::Tcx, state, again }
    }

    fn look(name: &str, state: LinkState, hooks: Vec<HookLook>) -> InterfaceLook {
        InterfaceLook {
            name: name.into(),
            number: Some(0),
            is_required: true,
            state,
            came_back: false,
            hooks,
        }
    }

    #[test]
    fn each_state_of_a_hook_and_an_interface_by_what_it_says() {
        use Direction::Ingress;
        use HookState::{Behind, Gone, Ours, Unknown};
        let theirs = || Behind(vec!["theirs (id 7)".into()]);
        let table = [
            (LinkState::Up, Ours, None, (0, 0), "", ""),
            (LinkState::NoCarrier, Ours, None, (0, 0), "", "e has no carrier"),
            (LinkState::Down, Ours, None, (0, 1), "", "e is down"),
            (LinkState::Gone, Gone, None, (1, 0), "e is gone", "e is gone"),
            (LinkState::Up, Gone, Some(Ok(())), (1, 0), "was lost, and is attached again", ""),
            (
                LinkState::Up,
                Gone,
                Some(Err("busy".into())),
                (1, 0),
                "again is refused: busy",
                "is refused: busy",
            ),
            (
                LinkState::Up,
                theirs(),
                Some(Ok(())),
                (1, 0),
                "was behind theirs (id 7), and is first again",
                "",
            ),
            (LinkState::Up, theirs(), None, (1, 0), "is behind theirs (id 7)", "is behind theirs (id 7)"),
            (LinkState::Up, Unknown("no".into()), None, (1, 0), "cannot be looked at: no", "looked at: no"),
            (
                LinkState::Refused("no".into()),
                Gone,
                None,
                (1, 0),
                "e is not watched: no",
                "e is not watched: no",
            ),
            (
                LinkState::Unknown("no".into()),
                Unknown("no".into()),
                None,
                (1, 0),
                "looked at: no",
                "e cannot be",
            ),
        ];
        for (state, found, again, counts, lost, obstacle) in table {
            let mut sight = Sight::default();
            let case = format!("{state:?} {found:?} {again:?}");
            sight.note(vec![look("e", state, vec![hook(Ingress, found, again)])], 7);
            assert_eq!((sight.hook_lost.count, sight.interface_down.count), counts, "{case}");
            assert!(sight.hook_lost.words().contains(lost), "{case}: {}", sight.hook_lost.words());
            let obstacles = sight.obstacles().join(" ");
            assert!(obstacles.contains(obstacle), "{case}: {obstacles}");
            assert_eq!(obstacles.is_empty(), obstacle.is_empty(), "{case}: {obstacles}");
        }
    }

    #[test]
    fn a_lapse_keeps_its_first_and_last_time_and_the_latest_of_each_place() {
        let lost = |again| hook(Direction::Egress, HookState::Gone, again);
        let fine = hook(Direction::Ingress, HookState::Ours, None);
        let mut sight = Sight::default();
        sight.note(vec![look("e", LinkState::Up, vec![lost(None), fine.clone()])], 10);
        sight.note(vec![look("e", LinkState::Up, vec![lost(Some(Ok(()))), fine.clone()])], 20);
        sight.note(vec![look("e", LinkState::Up, vec![fine.clone()])], 30);
        let Lapse { count, first_ns, last_ns, .. } = sight.hook_lost;
        assert_eq!((count, first_ns, last_ns), (2, 10, 20));
        assert_eq!(sight.hook_lost.words(), "e: the egress hook (tcx) was lost, and is attached again");
        assert_eq!(sight.obstacles(), [""; 0]);
        assert_eq!(sight.lapses_since(20), [sight.hook_lost.words()]);
        assert_eq!(sight.lapses_since(21), [""; 0]);
        let gone = |direction| hook(direction, HookState::Gone, None);
        let both = vec![gone(Direction::Egress), gone(Direction::Ingress)];
        sight.note(vec![look("f", LinkState::Gone, both)], 40);
        assert!(sight.hook_lost.words().ends_with("again; f is gone"), "{}", sight.hook_lost.words());
    }

    /// A service tells each finding once, its end where it lasted, and a second one like it again; what became
    /// of an interface it tells when it follows it.
    #[test]
    fn news_are_told_once() {
        use Direction::{Egress, Ingress};
        let again = || hook(Egress, HookState::Gone, Some(Ok(())));
        let refused = || hook(Ingress, HookState::Gone, Some(Err("no".into())));
        let fine = |direction| hook(direction, HookState::Ours, None);
        let both = |state, egress, ingress| vec![look("e", state, vec![egress, ingress])];
        let gone = |direction| hook(direction, HookState::Gone, None);
        let back = |looks: Vec<InterfaceLook>| -> Vec<InterfaceLook> {
            looks.into_iter().map(|look| InterfaceLook { came_back: true, ..look }).collect()
        };
        let lost = "e: the egress hook (tcx) was lost, and is attached again";
        let up = LinkState::Up;
        let table = [
            (both(up.clone(), fine(Egress), fine(Ingress)), vec![]),
            (both(up.clone(), again(), fine(Ingress)), vec![lost]),
            (both(up.clone(), fine(Egress), fine(Ingress)), vec![]),
            (
                both(up.clone(), again(), refused()),
                vec![lost, "e: the ingress hook (tcx) is lost, and attaching again is refused: no"],
            ),
            (both(up.clone(), fine(Egress), refused()), vec![]),
            (
                both(up.clone(), fine(Egress), fine(Ingress)),
                vec!["e: the ingress hook (tcx) was lost, and attaching again was refused: no"],
            ),
            (both(LinkState::Gone, gone(Egress), gone(Ingress)), vec![]),
            (back(both(up.clone(), again(), hook(Ingress, HookState::Gone, Some(Ok(()))))), vec![]),
            (both(LinkState::Down, fine(Egress), fine(Ingress)), vec!["e is down"]),
            (both(up, fine(Egress), fine(Ingress)), vec!["e was down"]),
        ];
        let mut sight = Sight::default();
        for (at, (looks, told)) in (1..).zip(table) {
            let before = sight.looked_ns();
            sight.note(looks, at * 10);
            let lapses = [&sight.hook_lost, &sight.interface_down];
            let news: Vec<&str> = lapses.into_iter().flat_map(|lapse| lapse.news_since(before)).collect();
            assert_eq!(news, told, "look {at}");
            let later: Vec<&str> =
                lapses.into_iter().flat_map(|lapse| lapse.news_since(sight.looked_ns())).collect();
            assert_eq!(later, [""; 0], "look {at}");
        }
    }

    /// What is over is not told as if it lasted.
    #[test]
    fn a_lapse_that_is_over_is_past() {
        use HookState::{Behind, Gone, Unknown};
        let fine = || vec![look("e", LinkState::Up, vec![hook(Direction::Ingress, HookState::Ours, None)])];
        let table = [
            (LinkState::Up, Gone, None, "hook (tcx) is lost", "hook (tcx) was lost"),
            (LinkState::Gone, Gone, None, "e is gone", "e was gone"),
            (
                LinkState::Up,
                Gone,
                Some(Err("no".into())),
                "is lost, and attaching again is refused: no",
                "was lost, and attaching again was refused: no",
            ),
            (
                LinkState::Up,
                Behind(vec!["theirs".into()]),
                None,
                "is behind theirs, which may keep packets from it",
                "was behind theirs, which may have kept packets from it",
            ),
            (
                LinkState::Up,
                Unknown("no".into()),
                None,
                "cannot be looked at: no",
                "could not be looked at: no",
            ),
        ];
        for (state, found, again, present, past) in table {
            let mut sight = Sight::default();
            sight.note(vec![look("e", state, vec![hook(Direction::Ingress, found, again)])], 1);
            assert!(sight.hook_lost.words().ends_with(present), "{}", sight.hook_lost.words());
            sight.note(fine(), 2);
            assert!(sight.hook_lost.words().ends_with(past), "{}", sight.hook_lost.words());
        }
        let mut sight = Sight::default();
        sight.note(vec![look("e", LinkState::Down, Vec::new())], 1);
        assert_eq!(sight.interface_down.words(), "e is down");
        sight.note(fine(), 2);
        assert_eq!(sight.lapses_since(0), ["e was down"]);
    }

    /// What was lost was lost after the last look that found it there. One that got no answer found nothing.
    #[test]
    fn a_lapse_begins_at_the_last_look_that_found_all_well() {
        use HookState::{Gone, Ours, Passing, Unknown};
        let looks = [
            (LinkState::Up, Ours, 10),
            (LinkState::Up, Ours, 20),
            (LinkState::Up, Passing(libc::EMFILE), 30),
            (LinkState::Unknown(String::new()), Passing(libc::EMFILE), 40),
            (LinkState::Up, Gone, 50),
            (LinkState::Up, Ours, 60),
            (LinkState::Up, Unknown(String::new()), 70),
            (LinkState::Down, Ours, 80),
        ];
        let mut sight = Sight::default();
        for (state, found, at_ns) in looks {
            sight.note(vec![look("e", state, vec![hook(Direction::Ingress, found, None)])], at_ns);
        }
        assert_eq!((sight.hook_lost.first_ns, sight.hook_lost.last_ns), (20, 70));
        assert_eq!((sight.interface_down.first_ns, sight.interface_down.last_ns), (60, 80));
    }

    #[test]
    fn of_many_obstacles_the_first_are_named() {
        let mut sight = Sight::default();
        let names = ["a", "b", "c", "d", "e", "f"];
        sight.note(names.iter().map(|name| look(name, LinkState::Down, Vec::new())).collect(), 1);
        assert_eq!(sight.obstacles(), ["a is down", "b is down", "c is down", "d is down", "and 2 more"]);
    }

    /// Many interfaces of a pattern are down or without a carrier: that keeps no packet from us that passes.
    #[test]
    fn an_interface_that_need_not_be_there_may_be_down() {
        for state in [LinkState::Down, LinkState::NoCarrier] {
            let mut sight = Sight::default();
            let ours = hook(Direction::Ingress, HookState::Ours, None);
            sight.note(vec![InterfaceLook { is_required: false, ..look("e", state, vec![ours]) }], 1);
            assert_eq!((sight.interface_down.count, sight.obstacles()), (0, Vec::new()));
        }
    }
}
