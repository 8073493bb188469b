//! What the person at the terminal has chosen: the screen, the cursor, the filter, the order. Pure: actions change it, and
//! drawing reads it.

use super::filter::ListFilter;
use super::keys::{Action, Edit, Motion};
use super::list::{self, AttemptColumn, ServiceColumn, SortOrder};
use super::scene::Scene;
use super::screen::Screen;
use super::service::ServiceId;
use super::theme::Theme;
use handshake_agent::model::flow::{Flow, FlowId};

/// What an action asks of the loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// End.
    Quit,
    /// Write the snapshot.
    Write,
    /// Draw every cell anew.
    Redraw,
}

/// Where the cursor is in a list that changes under it: with the row it was put on, while that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cursor<I> {
    row: usize,
    on: Option<I>,
}

impl<I> Default for Cursor<I> {
    fn default() -> Self {
        Self { row: 0, on: None }
    }
}

impl<I: Copy + PartialEq> Cursor<I> {
    /// Its row in a list of these.
    pub(crate) fn row(&self, list: &[I]) -> usize {
        let found = self.on.and_then(|on| list.iter().position(|each| *each == on));
        found.unwrap_or_else(|| self.row.min(list.len().saturating_sub(1)))
    }

    fn go(&mut self, motion: Motion, list: &[I], page: usize) {
        self.row = moved(self.row(list), motion, list.len(), page);
        // On the first row it stays first, whatever comes.
        self.on = list.get(self.row).copied().filter(|_| self.row != 0);
    }
}

fn moved(row: usize, motion: Motion, length: usize, page: usize) -> usize {
    let last = length.saturating_sub(1);
    match motion {
        Motion::Up => row.saturating_sub(1),
        Motion::Down => (row + 1).min(last),
        Motion::PageUp => row.saturating_sub(page),
        Motion::PageDown => (row + page).min(last),
        Motion::First => 0,
        Motion::Last => last,
    }
}

/// A filter that is being typed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct FilterInput {
    /// What is typed so far.
    pub(crate) text: String,
    /// What is wrong with it.
    pub(crate) wrong: Option<String>,
}

/// All that was chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ui {
    /// How things look.
    pub(crate) theme: Theme,
    /// What is shown.
    pub(crate) screen: Screen,
    /// The attempt whose ladder is shown.
    pub(crate) opened: Option<Flow>,
    /// The overlay is shown.
    pub(crate) help: bool,
    /// The picture stands still.
    pub(crate) frozen: bool,
    /// What attempts and services must fit.
    pub(crate) filter: ListFilter,
    /// A filter is being typed.
    pub(crate) input: Option<FilterInput>,
    /// The order of the attempts.
    pub(crate) attempts: SortOrder<AttemptColumn>,
    /// The order of the services.
    pub(crate) services: SortOrder<ServiceColumn>,
    /// Where it is among the attempts.
    pub(crate) on_attempt: Cursor<FlowId>,
    /// Where it is among the services.
    pub(crate) on_service: Cursor<ServiceId>,
    /// Lines of Health that are scrolled past.
    pub(crate) scrolled: usize,
    /// Lines that Health has, as it was last drawn.
    pub(crate) health_lines: usize,
    /// What the latest action came to.
    pub(crate) message: Option<String>,
    /// Rows of the terminal, for pages.
    pub(crate) rows: u16,
}

impl Ui {
    /// As it begins.
    pub(crate) fn new(theme: Theme) -> Self {
        Self {
            theme,
            screen: Screen::Overview,
            opened: None,
            help: false,
            frozen: false,
            filter: ListFilter::default(),
            input: None,
            attempts: SortOrder { column: AttemptColumn::Age, reversed: false },
            services: SortOrder { column: ServiceColumn::Begun, reversed: false },
            on_attempt: Cursor::default(),
            on_service: Cursor::default(),
            scrolled: 0,
            health_lines: 0,
            message: None,
            rows: 24,
        }
    }

    /// Does what was asked for; `scene` is what the person sees.
    pub(crate) fn apply(&mut self, action: Action, scene: &Scene) -> Option<Effect> {
        self.message = None;
        match action {
            Action::Quit => return Some(Effect::Quit),
            Action::Write => return Some(Effect::Write),
            Action::Redraw => return Some(Effect::Redraw),
            Action::Help => self.help = !self.help,
            Action::Next => self.go(self.screen.step(1)),
            Action::Previous => self.go(self.screen.step(Screen::ALL.len() - 1)),
            Action::Go(screen) => self.go(screen),
            Action::Move(motion) => self.walk(motion, scene),
            Action::Open => self.open(scene),
            Action::Back => self.back(),
            Action::Filter => self.begin_filter(),
            Action::Sort => self.sort(),
            Action::Reverse => self.reverse(),
            Action::Freeze => self.frozen = !self.frozen,
            Action::Edit(edit) => self.edit(edit),
        }
        None
    }

    /// Takes over what a new scene says of the attempt that is looked at.
    pub(crate) fn follow(&mut self, scene: &Scene) {
        if let Some(opened) = &mut self.opened
            && let Some(now) = scene.find(opened.id())
        {
            *opened = *now;
        }
    }

    fn go(&mut self, screen: Screen) {
        self.screen = screen;
        self.opened = None;
        self.help = false;
    }

    fn walk(&mut self, motion: Motion, scene: &Scene) {
        // The chrome around a list takes about six rows.
        let page = usize::from(self.rows.saturating_sub(6)).max(1);
        if self.help || self.opened.is_some() {
            return;
        }
        match self.screen {
            Screen::Overview => {}
            Screen::Attempts => {
                let ids: Vec<FlowId> =
                    list::attempts(scene, &self.filter, self.attempts).iter().map(|each| each.id()).collect();
                self.on_attempt.go(motion, &ids, page);
            }
            Screen::Services => {
                let ids: Vec<ServiceId> = list::services(scene, &self.filter, self.services)
                    .into_iter()
                    .map(|line| line.id())
                    .collect();
                self.on_service.go(motion, &ids, page);
            }
            Screen::Health => {
                self.scrolled = moved(self.scrolled, motion, self.health_lines, page);
            }
        }
    }

    fn open(&mut self, scene: &Scene) {
        if self.help || self.opened.is_some() {
            return self.back();
        }
        match self.screen {
            Screen::Overview => self.go(Screen::Attempts),
            Screen::Attempts => {
                let rows = list::attempts(scene, &self.filter, self.attempts);
                let ids: Vec<FlowId> = rows.iter().map(|each| each.id()).collect();
                self.opened = rows.get(self.on_attempt.row(&ids)).map(|attempt| **attempt);
            }
            Screen::Services => self.open_service(scene),
            Screen::Health => {}
        }
    }

    /// The attempts of the service under the cursor.
    fn open_service(&mut self, scene: &Scene) {
        let rows = list::services(scene, &self.filter, self.services);
        let ids: Vec<ServiceId> = rows.iter().map(|line| line.id()).collect();
        if let Some((Some(service), udp)) = ids.get(self.on_service.row(&ids)) {
            self.filter = ListFilter::of_service(*service, *udp);
            self.on_attempt = Cursor::default();
            self.go(Screen::Attempts);
        }
    }

    fn back(&mut self) {
        if self.help {
            self.help = false;
        } else if self.opened.is_some() {
            self.opened = None;
        } else {
            self.filter = ListFilter::default();
        }
    }

    fn begin_filter(&mut self) {
        self.help = false;
        self.input = Some(FilterInput { text: self.filter.text.clone(), wrong: None });
    }

    fn edit(&mut self, edit: Edit) {
        let Some(input) = &mut self.input else { return };
        match edit {
            Edit::Type(character) => input.text.push(character),
            Edit::Erase => {
                input.text.pop();
            }
            Edit::Clear => input.text.clear(),
            Edit::Accept if input.wrong.is_some() => {}
            Edit::Accept => self.input = None,
            Edit::Cancel => {
                self.filter = ListFilter::default();
                self.input = None;
            }
        }
        self.read_filter();
    }

    /// What is typed holds as soon as it makes sense.
    fn read_filter(&mut self) {
        let Some(input) = &mut self.input else { return };
        match ListFilter::parse(&input.text) {
            Ok(filter) => {
                input.wrong = None;
                self.filter = filter;
            }
            Err(wrong) => input.wrong = Some(wrong),
        }
    }

    fn sort(&mut self) {
        match self.screen {
            Screen::Attempts => {
                self.attempts = SortOrder { column: self.attempts.column.next(), reversed: false };
            }
            Screen::Services => {
                self.services = SortOrder { column: self.services.column.next(), reversed: false };
            }
            Screen::Overview | Screen::Health => {}
        }
    }

    fn reverse(&mut self) {
        match self.screen {
            Screen::Attempts => self.attempts.reversed ^= true,
            Screen::Services => self.services.reversed ^= true,
            Screen::Overview | Screen::Health => {}
        }
    }
}
