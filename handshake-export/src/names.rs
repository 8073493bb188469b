//! Figures by the operator's names: of services, or of workloads. A name is a label of series, so there are as
//! many as the configuration has, whatever the traffic is.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::sync::Arc;

use handshake_agent::model::metric::SERVICE;
use handshake_agent::model::metric::series::{Family, Kind, Series};
use handshake_agent::model::snapshot::ServiceBooks;

/// The name of what has none.
pub const OTHER: &str = "other";
/// Most names of one kind.
pub const MOST_NAMES: usize = 64;
/// The longest name.
const LONGEST: usize = 63;

/// A row of the kernel's table that an operator may name.
pub trait Row: Sized + 'static {
    /// What says which rows have a name.
    type Rule: Rule<Self>;
    /// What tells rows apart.
    type Key: Copy + Eq + Hash;

    /// Which row it is; `None` for the sum of the others.
    fn key(&self) -> Option<Self::Key>;

    /// Its figures.
    fn books(&self) -> ServiceBooks;

    /// Whether what rules ask for is known of it by now.
    fn is_known(&self) -> bool;

    /// The series of one name.
    fn columns() -> &'static [Column];
}

/// What gives rows a name.
pub trait Rule<R>: Clone + PartialEq {
    /// How many labels a name is.
    const LABELS: usize;

    /// The labels of the name, before those of the column.
    fn labels(&self) -> Labels;

    /// Whether a row has the name.
    fn admits(&self, row: &R) -> bool;
}

/// Values of labels.
pub type Labels = Vec<Cow<'static, str>>;

/// A series of a name: its family, its labels but the name, and the figures that it sums up.
pub struct Column {
    /// The family.
    pub family: &'static Family,
    /// The values of the family's labels behind the name.
    pub labels: Vec<&'static str>,
    /// Places in [`SERVICE`].
    parts: Vec<usize>,
}

/// The columns that the table of metrics has by `place`: the family of a name's figure, and its labels behind
/// the name.
pub fn columns(place: impl Fn(&Series) -> Option<(&'static Family, Vec<&'static str>)>) -> Vec<Column> {
    let mut columns: Vec<Column> = Vec::new();
    for (at, metric) in SERVICE.iter().enumerate() {
        let Some((family, labels)) = metric.series.as_ref().and_then(&place) else { continue };
        match columns.iter_mut().find(|known| known.family.name == family.name && known.labels == labels) {
            Some(column) => column.parts.push(at),
            None => columns.push(Column { family, labels, parts: vec![at] }),
        }
    }
    columns
}

/// The values that a series has of those labels of another family which are behind the name.
pub fn labels_behind(series: &Series, family: &Family, name: usize) -> Vec<&'static str> {
    let value = |label: &&str| {
        let place = series.family.labels.iter().position(|of_all| of_all == label);
        place.map_or("", |place| series.labels[place])
    };
    family.labels[name..].iter().map(value).collect()
}

impl Column {
    /// Its figure of a row.
    pub fn of(&self, books: &ServiceBooks) -> u64 {
        self.parts.iter().filter_map(|part| SERVICE[*part].value(books)).sum()
    }

    fn is_counter(&self) -> bool {
        self.family.kind == Kind::Counter
    }
}

type Figures = Vec<u64>;

/// The figures of one name.
struct Account<R: Row> {
    rules: Vec<R::Rule>,
    /// Counters since the name was given, gauges as they are.
    figures: Figures,
}

/// The figures by name.
///
/// The kernel side gives a row to another one where rows are scarce, and what it had counted is then in the row
/// of the others. A row may also change its name. So a name's counters are sums of what its rows rose by while
/// they were its own. A new row that nothing is known of yet waits for one reading before it counts.
pub struct Names<R: Row> {
    accounts: Vec<Account<R>>,
    other: Other,
    /// The rows of the latest reading, whatever their names are.
    rows: Arc<[R]>,
    /// Those of them that wait.
    waiting: HashSet<R::Key>,
}

/// The figures of what has no name.
#[derive(Default)]
struct Other {
    figures: Figures,
    /// For each counter what all rows rose by, less what names rose by. The rows are read after the counters:
    /// while packets arrive they have a few more, and this falls for a while.
    rests: Vec<i64>,
    /// The figures of all rows in the latest reading.
    totals: Figures,
}

impl<R: Row> Default for Names<R> {
    fn default() -> Self {
        let (accounts, other, waiting) = Default::default();
        Self { accounts, other, rows: Arc::new([]), waiting }
    }
}

impl<R: Row> Names<R> {
    /// Names rows anew. A name that keeps its rules keeps its counters, and another one begins at 0.
    pub fn name(&mut self, rules: impl IntoIterator<Item = R::Rule>) {
        let mut accounts: Vec<Account<R>> = Vec::new();
        for rule in rules {
            match accounts.iter_mut().find(|account| account.rules[0].labels() == rule.labels()) {
                Some(account) => account.rules.push(rule),
                None => accounts.push(Account { rules: vec![rule], figures: Figures::new() }),
            }
        }
        for account in &mut accounts {
            let known = self.accounts.iter_mut().find(|known| known.rules == account.rules);
            if let Some(known) = known {
                account.figures = std::mem::take(&mut known.figures);
            }
        }
        self.accounts = accounts;
    }

    /// Takes the rows of a reading in. `totals` has the figure of all rows for each column.
    pub fn take_in(&mut self, rows: &Arc<[R]>, totals: &[u64]) {
        let before = std::mem::replace(&mut self.rows, Arc::clone(rows));
        let before: HashMap<R::Key, &R> = before.iter().filter_map(|row| Some((row.key()?, row))).collect();
        let waited = std::mem::take(&mut self.waiting);
        self.accounts.iter_mut().for_each(Account::begin);
        let mut named = vec![0; R::columns().len()];
        let mut totals = totals.to_vec();
        for row in rows.iter() {
            let Some(key) = row.key() else { continue };
            let before = before.get(&key).copied();
            if before.is_none() && !row.is_known() {
                let books = row.books();
                self.waiting.insert(key);
                let all = totals.iter_mut().zip(R::columns());
                all.for_each(|(total, column)| *total = total.saturating_sub(column.of(&books)));
                continue;
            }
            // A row that was given away and came back has begun anew.
            let before = before.filter(|before| before.books().begun() <= row.books().begun());
            let before = before.filter(|_| !waited.contains(&key));
            let admits = |account: &&mut Account<R>| account.rules.iter().any(|rule| rule.admits(row));
            if let Some(account) = self.accounts.iter_mut().find(admits) {
                account.take_in(row, before, &mut named);
            }
        }
        self.other.take_in(R::columns(), &totals, &named);
    }

    /// Whether there is a name.
    pub fn has_any(&self) -> bool {
        !self.accounts.is_empty()
    }

    /// The labels of each name with its figures in the order of the columns; the last is `other`.
    pub fn figures(&self) -> impl Iterator<Item = (Labels, &[u64])> {
        let named = self.accounts.iter().map(|each| (each.rules[0].labels(), each.figures.as_slice()));
        let mut other = vec![Cow::Borrowed(""); R::Rule::LABELS];
        other[0] = Cow::Borrowed(OTHER);
        named.chain([(other, self.other.figures.as_slice())])
    }
}

fn difference(now: u64, before: u64) -> i64 {
    now.cast_signed().wrapping_sub(before.cast_signed())
}

impl<R: Row> Account<R> {
    /// Begins a reading: counters stay, gauges are summed up anew.
    fn begin(&mut self) {
        self.figures.resize(R::columns().len(), 0);
        for (figure, column) in self.figures.iter_mut().zip(R::columns()) {
            if !column.is_counter() {
                *figure = 0;
            }
        }
    }

    /// Takes a row in, and adds what it changed by, or its gauges, to `named`.
    fn take_in(&mut self, row: &R, before: Option<&R>, named: &mut [i64]) {
        let (row, before) = (row.books(), before.map(R::books));
        for ((column, figure), named) in R::columns().iter().zip(&mut self.figures).zip(named) {
            let before =
                before.as_ref().filter(|_| column.is_counter()).map_or(0, |before| column.of(before));
            let change = difference(column.of(&row), before);
            *figure += u64::try_from(change).unwrap_or(0);
            *named += change;
        }
    }
}

impl Other {
    /// Takes in the figures of all rows, and what names changed by, or their gauges.
    fn take_in(&mut self, columns: &[Column], totals: &[u64], named: &[i64]) {
        self.figures.resize(columns.len(), 0);
        self.rests.resize(columns.len(), 0);
        self.totals.resize(columns.len(), 0);
        for (at, column) in columns.iter().enumerate() {
            if column.is_counter() {
                self.rests[at] += difference(totals[at], self.totals[at]) - named[at];
                self.figures[at] = self.figures[at].max(u64::try_from(self.rests[at]).unwrap_or(0));
            } else {
                self.figures[at] = u64::try_from(difference(totals[at], 0) - named[at]).unwrap_or(0);
            }
        }
        totals.clone_into(&mut self.totals);
    }
}

/// The name of `NAME=WHAT`, and what has it.
///
/// # Errors
///
/// There is no name, or one that cannot be.
pub fn named<'a>(text: &'a str, example: &str) -> Result<(&'a str, &'a str), String> {
    let (name, what) = text.split_once('=').ok_or_else(|| format!("a name is missing, as in {example}"))?;
    let is_fit = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if name.is_empty() || name.len() > LONGEST || !name.chars().all(is_fit) {
        return Err(format!("'{name}' is no name: letters, digits, _, - and . are, up to {LONGEST}"));
    }
    if name == OTHER {
        return Err(format!("'{OTHER}' is the name of what has none"));
    }
    Ok((name, what))
}

/// Whether two rules name the same rows differently is the operator's business: the first one counts. Too many
/// names are refused.
///
/// # Errors
///
/// There are more than [`MOST_NAMES`] in this option.
pub fn check<'a>(option: &str, names: impl Iterator<Item = &'a str>) -> Result<(), String> {
    let names = names.collect::<HashSet<_>>().len();
    if names > MOST_NAMES {
        return Err(format!("--{option}: {names} names, but at most {MOST_NAMES} are allowed"));
    }
    Ok(())
}
