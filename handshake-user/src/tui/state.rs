//! The user's choices: the screen, the cursor, the filter, the order. Actions change them, and drawing reads
//! them. Pure.

use super::filter::ListFilter;
use super::keys::{Action, Edit, Mode, Motion};
use super::list::{self, AttemptColumn, ServiceColumn, SortOrder};
use super::scene::Scene;
use super::screen::Screen;
use super::service::ServiceId;
use super::theme::Theme;
use super::timeline::Step;
use crate::names::Names;
use handshake_agent::address::Cidr;
use handshake_agent::model::flow::{Flow, FlowId};
use handshake_agent::model::snapshot::Origin;

/// An effect of an action outside the choices, carried out by the loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Quit.
    Quit,
    /// Write the snapshot.
    Write,
    /// Copy what is shown.
    Copy,
    /// Save the packets of this attempt.
    Save(Flow),
    /// Redraw every cell.
    Redraw,
    /// Go through time.
    Travel(Step),
}

/// The cursor in a list that changes. It stays on the row that it was put on while that row exists.
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
    /// The cursor's index in a list with these rows.
    pub(crate) fn row(&self, list: &[I]) -> usize {
        let found = self.on.and_then(|on| list.iter().position(|each| *each == on));
        found.unwrap_or_else(|| self.row.min(list.len().saturating_sub(1)))
    }

    fn go(&mut self, motion: Motion, list: &[I], page: usize) {
        self.row = moved(self.row(list), motion, list.len(), page);
        // On the first row, the cursor stays on the first row, whichever that is.
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
    /// The text so far.
    pub(crate) text: String,
    /// The fault of the text, if it is invalid.
    pub(crate) wrong: Option<String>,
}

/// What stands for an end of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EndWords {
    /// Its address.
    Address,
    /// The name of its address, where names are asked for and it is known.
    Name,
    /// Its owner where that is known, else the same as with [`Name`](Self::Name).
    Owner,
}

/// All choices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ui {
    /// Colours and characters.
    pub(crate) theme: Theme,
    /// The screen.
    pub(crate) screen: Screen,
    /// The attempt whose ladder is shown.
    pub(crate) opened: Option<Flow>,
    /// Whether the help is shown.
    pub(crate) help: bool,
    /// Whether the screen is frozen.
    pub(crate) frozen: bool,
    /// What stands for an end.
    pub(crate) ends: EndWords,
    /// The filter of attempts and services.
    pub(crate) filter: ListFilter,
    /// The filter that is being typed.
    pub(crate) input: Option<FilterInput>,
    /// Whether the clients' networks are listed instead of the attempts.
    pub(crate) clients: bool,
    /// The order of the attempts.
    pub(crate) attempts: SortOrder<AttemptColumn>,
    /// The order of the services.
    pub(crate) services: SortOrder<ServiceColumn>,
    /// The cursor in the attempts.
    pub(crate) on_attempt: Cursor<FlowId>,
    /// The cursor in the clients' networks.
    pub(crate) on_client: Cursor<Cidr>,
    /// The cursor in the services.
    pub(crate) on_service: Cursor<ServiceId>,
    /// Number of lines of Health above the first shown.
    pub(crate) scrolled: usize,
    /// Number of lines that Health had when it was last drawn.
    pub(crate) health_lines: usize,
    /// The message of the latest action.
    pub(crate) message: Option<String>,
    /// Rows of the terminal, from which the length of a page follows.
    pub(crate) rows: u16,
    /// Whether there is a recording to go through.
    pub(crate) is_recorded: bool,
}

impl Ui {
    /// The initial choices.
    pub(crate) fn new(theme: Theme) -> Self {
        Self {
            theme,
            screen: Screen::Overview,
            opened: None,
            help: false,
            frozen: false,
            ends: EndWords::Name,
            filter: ListFilter::default(),
            input: None,
            clients: false,
            attempts: SortOrder { column: AttemptColumn::Age, reversed: false },
            services: SortOrder { column: ServiceColumn::Begun, reversed: false },
            on_attempt: Cursor::default(),
            on_client: Cursor::default(),
            on_service: Cursor::default(),
            scrolled: 0,
            health_lines: 0,
            message: None,
            rows: 24,
            is_recorded: false,
        }
    }

    /// Applies an action to the choices. `scene` is the one on the screen.
    pub(crate) fn apply(&mut self, action: Action, scene: &Scene) -> Option<Effect> {
        self.message = None;
        match action {
            Action::Quit => return Some(Effect::Quit),
            Action::Write => return Some(Effect::Write),
            Action::Copy => return Some(Effect::Copy),
            Action::Save => return self.chosen(scene).map(Effect::Save),
            Action::Redraw => return Some(Effect::Redraw),
            Action::Travel(step) => return Some(Effect::Travel(step)),
            Action::Help => self.help = !self.help,
            Action::Next => self.go(self.screen.step(1)),
            Action::Previous => self.go(self.screen.step(Screen::ALL.len() - 1)),
            Action::Go(screen) => self.go(screen),
            Action::Move(motion) => self.walk(motion, scene),
            Action::Open => self.open(scene),
            Action::Back => self.back(),
            Action::Filter => self.begin_filter(),
            Action::Failures => self.toggle_failures(),
            Action::Clients => self.toggle_clients(),
            Action::Jump => self.jump(scene),
            Action::Sort => self.sort(),
            Action::Reverse => self.reverse(),
            Action::Freeze => self.frozen = !self.frozen,
            Action::Names => self.turn_ends(scene),
            Action::Edit(edit) => self.edit(edit),
        }
        None
    }

    /// What decides which action a key has.
    pub(crate) const fn mode(&self) -> Mode {
        Mode { is_typing: self.input.is_some(), is_recorded: self.is_recorded }
    }

    /// The names of ends.
    pub(crate) const fn names(&self, scene: &Scene) -> Names {
        match self.ends {
            EndWords::Address => Names::NONE,
            EndWords::Name | EndWords::Owner => scene.names,
        }
    }

    /// Shows ends by the next of address, name and owner that there is. A capture does not tell owners.
    fn turn_ends(&mut self, scene: &Scene) {
        let is_live = matches!(scene.snapshot.context.origin, Origin::Live(_));
        let (next, by) = match self.ends {
            EndWords::Address if scene.names.are_wanted() => (EndWords::Name, "name, where it is known"),
            EndWords::Address | EndWords::Name if is_live => (EndWords::Owner, "owner, where it is known"),
            EndWords::Name if !scene.names.are_wanted() => {
                self.message = Some(" names are shown with --names".to_owned());
                return;
            }
            EndWords::Address | EndWords::Name | EndWords::Owner => (EndWords::Address, "address"),
        };
        self.ends = next;
        self.message = Some(format!(" ends by {by}"));
    }

    /// Updates the opened attempt from a new scene.
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
        // Header, titles and status take about six rows.
        let page = usize::from(self.rows.saturating_sub(6)).max(1);
        if self.help || self.opened.is_some() {
            return;
        }
        match self.screen {
            Screen::Overview => {}
            Screen::Attempts if self.clients => {
                let ids: Vec<Cidr> =
                    list::clients(scene, &self.filter).iter().map(|each| each.network).collect();
                self.on_client.go(motion, &ids, page);
            }
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
            Screen::Attempts if self.clients => self.open_client(scene),
            Screen::Attempts => self.opened = self.chosen(scene),
            Screen::Services => self.open_service(scene),
            Screen::Health => {}
        }
    }

    /// The attempt whose ladder is shown, or that is under the cursor.
    fn chosen(&self, scene: &Scene) -> Option<Flow> {
        if self.opened.is_some() || self.screen != Screen::Attempts || self.clients {
            return self.opened;
        }
        let rows = list::attempts(scene, &self.filter, self.attempts);
        let ids: Vec<FlowId> = rows.iter().map(|each| each.id()).collect();
        rows.get(self.on_attempt.row(&ids)).map(|attempt| **attempt)
    }

    /// Shows the attempts of the service under the cursor.
    fn open_service(&mut self, scene: &Scene) {
        let rows = list::services(scene, &self.filter, self.services);
        let ids: Vec<ServiceId> = rows.iter().map(|line| line.id()).collect();
        if let Some((Some(service), udp)) = ids.get(self.on_service.row(&ids)) {
            self.filter = ListFilter::of_service(*service, *udp);
            self.on_attempt = Cursor::default();
            self.go(Screen::Attempts);
        }
    }

    /// Shows the attempts of the clients under the cursor.
    fn open_client(&mut self, scene: &Scene) {
        let ids: Vec<Cidr> = list::clients(scene, &self.filter).iter().map(|each| each.network).collect();
        if let Some(network) = ids.get(self.on_client.row(&ids)) {
            self.filter = self.filter.with_client(*network);
            self.clients = false;
            self.on_attempt = Cursor::default();
        }
    }

    /// Lists failures only, or everything: of attempts, unless services are shown.
    fn toggle_failures(&mut self) {
        self.filter = self.filter.with_failures(!self.filter.wants_failures());
        self.show_list();
    }

    fn toggle_clients(&mut self) {
        let shown = self.screen == Screen::Attempts && self.opened.is_none() && !self.help;
        self.clients = !(shown && self.clients);
        self.go(Screen::Attempts);
    }

    /// Shows the failures that the banner is about.
    fn jump(&mut self, scene: &Scene) {
        let Some(surge) = &scene.surge else {
            self.message = Some(" there is no banner".to_owned());
            return;
        };
        self.filter = ListFilter::of_failures(surge.service);
        (self.clients, self.on_attempt) = (false, Cursor::default());
        self.go(Screen::Attempts);
    }

    /// Leaves a screen without a list for Attempts.
    fn show_list(&mut self) {
        let screen = match self.screen {
            Screen::Overview | Screen::Attempts | Screen::Health => Screen::Attempts,
            Screen::Services => Screen::Services,
        };
        self.go(screen);
    }

    fn back(&mut self) {
        if self.help {
            self.help = false;
        } else if self.opened.is_some() {
            self.opened = None;
        } else if self.clients && self.screen == Screen::Attempts {
            self.clients = false;
        } else {
            self.filter = ListFilter::default();
        }
    }

    fn begin_filter(&mut self) {
        self.help = false;
        // What is typed next is a word of its own.
        let text = if self.filter.is_empty() { String::new() } else { format!("{} ", self.filter.text) };
        self.input = Some(FilterInput { text, wrong: None });
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

    /// Applies the typed filter as soon as it is valid; one that is not applies nothing.
    fn read_filter(&mut self) {
        let Some(input) = &mut self.input else { return };
        match ListFilter::parse(&input.text) {
            Ok(filter) => {
                input.wrong = None;
                self.filter = filter;
            }
            Err(wrong) => {
                input.wrong = Some(wrong);
                self.filter = ListFilter::default();
            }
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
