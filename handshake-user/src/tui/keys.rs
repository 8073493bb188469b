//! The keys and their actions. Pure.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a terminal has many keys, most of which have no action here"
)]

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::screen::Screen;
use super::timeline::Step;

/// Moments of a minute.
const MINUTE: usize = 60;

/// The action of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Quit.
    Quit,
    /// Show or hide the help.
    Help,
    /// Show the next screen.
    Next,
    /// Show the previous screen.
    Previous,
    /// Show this screen.
    Go(Screen),
    /// Move the cursor.
    Move(Motion),
    /// Open the row under the cursor.
    Open,
    /// Close what is open, or clear the filter.
    Back,
    /// Begin to type a filter.
    Filter,
    /// List failures only, or everything.
    Failures,
    /// List the clients' networks instead of the attempts, or the attempts.
    Clients,
    /// Show the attempts that the banner is about.
    Jump,
    /// Copy what is shown as text.
    Copy,
    /// Sort by the next column.
    Sort,
    /// Reverse the order.
    Reverse,
    /// Freeze the screen, or continue.
    Freeze,
    /// Show ends by the next of address, name and owner.
    Names,
    /// Write the snapshot as JSON to a file.
    Write,
    /// Save the packets of an attempt.
    Save,
    /// Redraw everything, after another program wrote to the terminal.
    Redraw,
    /// Go through time.
    Travel(Step),
    /// Edit the filter that is being typed.
    Edit(Edit),
}

/// What decides which action a key has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mode {
    /// A filter is being typed.
    pub(crate) is_typing: bool,
    /// There is a recording to go through.
    pub(crate) is_recorded: bool,
}

/// A change of the filter that is being typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Edit {
    /// Append a character.
    Type(char),
    /// Erase the last character.
    Erase,
    /// Erase everything.
    Clear,
    /// Finish typing.
    Accept,
    /// Remove the filter.
    Cancel,
}

/// A motion of the cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Motion {
    /// A row up.
    Up,
    /// A row down.
    Down,
    /// A page up.
    PageUp,
    /// A page down.
    PageDown,
    /// To the first row.
    First,
    /// To the last row.
    Last,
}

/// The action of a key, if it has one.
pub(crate) fn action(key: KeyEvent, mode: Mode) -> Option<Action> {
    let typing = mode.is_typing;
    if key.kind == KeyEventKind::Release {
        return None;
    }
    if key.modifiers.contains(KeyModifiers::ALT) {
        return None;
    }
    if key.modifiers.contains(KeyModifiers::CONTROL) {
        return with_control(key.code, typing);
    }
    if typing {
        return typed(key.code);
    }
    let by = if key.modifiers.contains(KeyModifiers::SHIFT) { MINUTE } else { 1 };
    travelled(key.code, by).filter(|_| mode.is_recorded).map(Action::Travel).or_else(|| pressed(key.code))
}

/// The step through a recording.
const fn travelled(code: KeyCode, by: usize) -> Option<Step> {
    match code {
        KeyCode::Left => Some(Step::Back(by)),
        KeyCode::Right => Some(Step::On(by)),
        KeyCode::Home => Some(Step::End),
        _ => None,
    }
}

const fn with_control(code: KeyCode, typing: bool) -> Option<Action> {
    match code {
        KeyCode::Char('c') => Some(Action::Quit),
        KeyCode::Char('l') => Some(Action::Redraw),
        KeyCode::Char('u' | 'w') if typing => Some(Action::Edit(Edit::Clear)),
        KeyCode::Char('f') if !typing => Some(Action::Move(Motion::PageDown)),
        KeyCode::Char('b') if !typing => Some(Action::Move(Motion::PageUp)),
        _ => None,
    }
}

const fn typed(code: KeyCode) -> Option<Action> {
    Some(Action::Edit(match code {
        KeyCode::Char(character) => Edit::Type(character),
        KeyCode::Backspace => Edit::Erase,
        KeyCode::Enter => Edit::Accept,
        KeyCode::Esc => Edit::Cancel,
        _ => return None,
    }))
}

const fn pressed(code: KeyCode) -> Option<Action> {
    Some(match code {
        KeyCode::Char('q') => Action::Quit,
        KeyCode::Char('?' | 'h') => Action::Help,
        KeyCode::Tab | KeyCode::Char(']') => Action::Next,
        KeyCode::BackTab | KeyCode::Char('[') => Action::Previous,
        KeyCode::Char('1') => Action::Go(Screen::Overview),
        KeyCode::Char('2') => Action::Go(Screen::Attempts),
        KeyCode::Char('3') => Action::Go(Screen::Services),
        KeyCode::Char('4') => Action::Go(Screen::Health),
        KeyCode::Up | KeyCode::Char('k') => Action::Move(Motion::Up),
        KeyCode::Down | KeyCode::Char('j') => Action::Move(Motion::Down),
        KeyCode::PageUp => Action::Move(Motion::PageUp),
        KeyCode::PageDown | KeyCode::Char(' ') => Action::Move(Motion::PageDown),
        KeyCode::Home | KeyCode::Char('g') => Action::Move(Motion::First),
        KeyCode::End | KeyCode::Char('G') => Action::Move(Motion::Last),
        KeyCode::Enter | KeyCode::Right => Action::Open,
        KeyCode::Esc | KeyCode::Left | KeyCode::Backspace => Action::Back,
        KeyCode::Char('/') => Action::Filter,
        KeyCode::Char('f') => Action::Failures,
        KeyCode::Char('c') => Action::Clients,
        KeyCode::Char('!') => Action::Jump,
        KeyCode::Char('y') => Action::Copy,
        KeyCode::Char('s') => Action::Sort,
        KeyCode::Char('S') => Action::Reverse,
        KeyCode::Char('p') => Action::Freeze,
        KeyCode::Char('n') => Action::Names,
        KeyCode::Char('w') => Action::Write,
        KeyCode::Char('e') => Action::Save,
        _ => return None,
    })
}

/// The keys and their meanings as the help lists them.
pub(crate) const HELP: [(&str, &str); 13] = [
    ("Tab ] [ 1-4", "next, previous screen; screen by number"),
    ("↑ ↓ j k", "one row up or down"),
    ("PgUp PgDn g G", "a page up or down, first row, last row"),
    ("Enter", "ladder of an attempt; attempts of a row"),
    ("Esc", "back; clear the filter"),
    ("/", "filter: port:443 connect>1s 10.0.0.0/8"),
    ("f c", "failures only; by network of clients"),
    ("!", "the failures that the banner is about"),
    ("s S", "sort by the next column; reverse"),
    ("p n", "freeze; ends by address, name or owner"),
    ("w y e", "write JSON; copy as text; save to --evidence"),
    ("← → Home", "back and on in a --record; Shift a minute; live"),
    ("? q Ctrl-C", "this help; quit and print the last report"),
];

/// What signs and colours mean, if the help has room.
pub(crate) const LEGEND: [&str; 4] = [
    "✔ ◐ ✘ all, some, few complete; – nothing to decide",
    "○ opening, ◐ half-open: no answer yet, none for too long",
    "red failed, green completed; the cursor's row is reversed",
    "each chart has its own scale: the maximum at its end",
];

/// More about filters, if the help has room.
pub(crate) const FILTERS: [&str; 2] = [
    "filters: cause:no_ack client:10.0.0.0/8 unit:nginx silent",
    "all words must match; another word is text to look for",
];

#[cfg(test)]
mod tests {
    use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

    use super::{Action, Edit, HELP, MINUTE, Mode, Motion, action};
    use crate::testing::{TERMINAL, firsts};
    use crate::tui::screen::Screen;
    use crate::tui::timeline::Step;

    const LIVE: Mode = Mode { is_typing: false, is_recorded: false };
    const RECORDED: Mode = Mode { is_typing: false, is_recorded: true };
    const WHILE_TYPING: Mode = Mode { is_typing: true, is_recorded: false };

    const NORMAL: [(KeyCode, Action); 38] = [
        (KeyCode::Char('q'), Action::Quit),
        (KeyCode::Char('?'), Action::Help),
        (KeyCode::Char('h'), Action::Help),
        (KeyCode::Tab, Action::Next),
        (KeyCode::Char(']'), Action::Next),
        (KeyCode::BackTab, Action::Previous),
        (KeyCode::Char('['), Action::Previous),
        (KeyCode::Char('1'), Action::Go(Screen::Overview)),
        (KeyCode::Char('2'), Action::Go(Screen::Attempts)),
        (KeyCode::Char('3'), Action::Go(Screen::Services)),
        (KeyCode::Char('4'), Action::Go(Screen::Health)),
        (KeyCode::Up, Action::Move(Motion::Up)),
        (KeyCode::Char('k'), Action::Move(Motion::Up)),
        (KeyCode::Down, Action::Move(Motion::Down)),
        (KeyCode::Char('j'), Action::Move(Motion::Down)),
        (KeyCode::PageUp, Action::Move(Motion::PageUp)),
        (KeyCode::PageDown, Action::Move(Motion::PageDown)),
        (KeyCode::Char(' '), Action::Move(Motion::PageDown)),
        (KeyCode::Home, Action::Move(Motion::First)),
        (KeyCode::Char('g'), Action::Move(Motion::First)),
        (KeyCode::End, Action::Move(Motion::Last)),
        (KeyCode::Char('G'), Action::Move(Motion::Last)),
        (KeyCode::Enter, Action::Open),
        (KeyCode::Right, Action::Open),
        (KeyCode::Esc, Action::Back),
        (KeyCode::Left, Action::Back),
        (KeyCode::Backspace, Action::Back),
        (KeyCode::Char('/'), Action::Filter),
        (KeyCode::Char('f'), Action::Failures),
        (KeyCode::Char('c'), Action::Clients),
        (KeyCode::Char('!'), Action::Jump),
        (KeyCode::Char('y'), Action::Copy),
        (KeyCode::Char('s'), Action::Sort),
        (KeyCode::Char('S'), Action::Reverse),
        (KeyCode::Char('p'), Action::Freeze),
        (KeyCode::Char('n'), Action::Names),
        (KeyCode::Char('w'), Action::Write),
        (KeyCode::Char('e'), Action::Save),
    ];

    const TYPING: [(KeyCode, Action); 6] = [
        (KeyCode::Char('q'), Action::Edit(Edit::Type('q'))),
        (KeyCode::Char('/'), Action::Edit(Edit::Type('/'))),
        (KeyCode::Char('1'), Action::Edit(Edit::Type('1'))),
        (KeyCode::Backspace, Action::Edit(Edit::Erase)),
        (KeyCode::Enter, Action::Edit(Edit::Accept)),
        (KeyCode::Esc, Action::Edit(Edit::Cancel)),
    ];

    #[test]
    fn each_key_has_its_action() {
        for (code, means) in NORMAL {
            assert_eq!(action(KeyEvent::from(code), LIVE), Some(means), "{code:?}");
        }
        for (code, means) in TYPING {
            assert_eq!(action(KeyEvent::from(code), WHILE_TYPING), Some(means), "{code:?}");
        }
        for code in [KeyCode::F(1), KeyCode::Insert, KeyCode::Char('z'), KeyCode::Null] {
            assert_eq!(action(KeyEvent::from(code), LIVE), None, "{code:?}");
        }
        assert_eq!(action(KeyEvent::from(KeyCode::Up), WHILE_TYPING), None);
    }

    /// Over a recording three keys go through time; all others are as they were.
    #[test]
    fn arrows_go_through_a_recording() {
        let shifted = |code| KeyEvent::new(code, KeyModifiers::SHIFT);
        let travels = [
            (KeyCode::Left, Step::Back(1), Step::Back(MINUTE)),
            (KeyCode::Right, Step::On(1), Step::On(MINUTE)),
            (KeyCode::Home, Step::End, Step::End),
        ];
        for (code, one, minute) in travels {
            assert_eq!(action(KeyEvent::from(code), RECORDED), Some(Action::Travel(one)));
            assert_eq!(action(shifted(code), RECORDED), Some(Action::Travel(minute)));
            assert_eq!(action(KeyEvent::from(code), Mode { is_typing: true, ..RECORDED }), None);
        }
        for (code, means) in NORMAL.into_iter().filter(|(code, _)| travels.iter().all(|(of, ..)| of != code))
        {
            assert_eq!(action(KeyEvent::from(code), RECORDED), Some(means), "{code:?}");
        }
    }

    #[test]
    fn ctrl_c_quits_while_typing_as_well() {
        let control = |character| KeyEvent::new(KeyCode::Char(character), KeyModifiers::CONTROL);
        for typing in [LIVE, RECORDED, WHILE_TYPING] {
            assert_eq!(action(control('c'), typing), Some(Action::Quit));
            assert_eq!(action(control('l'), typing), Some(Action::Redraw));
            assert_eq!(action(control('q'), typing), None);
        }
        assert_eq!(action(control('u'), WHILE_TYPING), Some(Action::Edit(Edit::Clear)));
        let alt = KeyEvent::new(KeyCode::Char('q'), KeyModifiers::ALT);
        assert_eq!(action(alt, LIVE), None);
    }

    /// Terminals that report releases send each key twice.
    #[test]
    fn the_release_of_a_key_has_no_action() {
        let mut key = KeyEvent::from(KeyCode::Char('q'));
        key.kind = KeyEventKind::Release;
        assert_eq!(action(key, LIVE), None);
    }

    /// The name of a key in docs/terminal.md.
    fn name(code: KeyCode) -> String {
        let name = match code {
            KeyCode::Char(' ') => "Space",
            KeyCode::Char(character) => return character.to_string(),
            KeyCode::BackTab => "Shift-Tab",
            KeyCode::Up => "↑",
            KeyCode::Down => "↓",
            KeyCode::Left => "←",
            KeyCode::Right => "→",
            KeyCode::PageUp => "PgUp",
            KeyCode::PageDown => "PgDn",
            other => return format!("{other:?}"),
        };
        name.to_owned()
    }

    /// The letters that have an action with Control.
    fn with_control(mode: Mode) -> impl Iterator<Item = String> {
        let means = move |letter: &char| {
            action(KeyEvent::new(KeyCode::Char(*letter), KeyModifiers::CONTROL), mode).is_some()
        };
        ('a'..='z').filter(means).map(|letter| format!("Ctrl-{}", letter.to_ascii_uppercase()))
    }

    /// docs/terminal.md has exactly these keys.
    #[test]
    fn each_key_is_documented() {
        let travel = ["←", "→", "Shift-←", "Shift-→", "Home"].map(str::to_owned);
        assert_eq!(firsts(TERMINAL, "key over a recording"), travel.into());
        let keys = NORMAL.iter().map(|(code, _)| name(*code)).chain(with_control(LIVE));
        assert_eq!(firsts(TERMINAL, "key |"), keys.collect());
        let typed =
            TYPING.iter().filter(|(code, _)| !matches!(code, KeyCode::Char(_))).map(|(code, _)| name(*code));
        let always = ["Ctrl-C", "Ctrl-L"];
        let typed = typed.chain(with_control(WHILE_TYPING).filter(|name| !always.contains(&name.as_str())));
        assert_eq!(firsts(TERMINAL, "key while typing"), typed.collect());
    }

    /// Each single character in the help has an action.
    #[test]
    fn each_key_in_the_help_has_an_action() {
        for (keys, _) in HELP {
            for name in keys.split(' ').filter(|name| name.len() == 1) {
                let code = KeyCode::Char(name.chars().next().expect("one character"));
                assert!(action(KeyEvent::from(code), LIVE).is_some(), "{name}");
            }
        }
    }
}
