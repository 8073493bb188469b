//! The language of `--expect`: `completed / attempts >= 99.9%`. Parses a text into a type-checked tree. Pure.
//!
//! ```text
//! expectation = sum COMPARISON sum                    COMPARISON: >= <= == != > <
//! sum         = quotient { ("+" | "-") quotient }
//! quotient    = value { "/" value }
//! value       = [ "-" ] NUMBER [ "%" | UNIT | "/" "s" ] | figure
//!             | FUNCTION "(" LEG [ "of" "completed" ] [ selection ] ")"
//!             | ( "rate" | "change" | "old" | "new" ) "(" sum ")" | "(" sum ")"
//! figure      = NAME [ selection ]
//! selection   = "{" SELECTOR "=" VALUE { "," SELECTOR "=" VALUE } "}"
//! ```
//!
//! Both sides must be of one kind: counts, times, shares or rates. Each error names its place in the text,
//! and is reported before anything is attached. `change`, `old` and `new` compare two reports.

mod fraction;
mod lexer;
pub(crate) mod name;
mod parser;
mod selection;
#[cfg(test)]
mod tests;

use std::cmp::Ordering;
use std::fmt;

pub(crate) use fraction::Fraction;
pub(crate) use name::Figure;
pub(crate) use selection::{Selection, Services, Workloads};
use unicode_width::UnicodeWidthChar;

use crate::escape::printable;

/// A condition on the figures of a report.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Expectation {
    /// The text as given.
    pub(crate) text: String,
    /// The measured side: names at least one figure.
    pub(crate) left: ExpressionTerm,
    /// The comparison that must hold.
    pub(crate) comparison: Comparator,
    /// The side that it is compared with.
    pub(crate) right: ExpressionTerm,
    /// The kind of both sides.
    pub(crate) kind: ValueKind,
    /// Whether shares are shown in percent.
    pub(crate) percent: bool,
}

impl Expectation {
    /// Parses a text of `origin`: an option, or a line of a file.
    ///
    /// # Errors
    ///
    /// The fault and its place.
    pub(crate) fn parse(text: &str, origin: &str, scope: Scope) -> Result<Self, ParseError> {
        let error = |fault| ParseError { origin: origin.to_owned(), text: text.to_owned(), fault };
        parser::parse(text, scope).map_err(error)
    }

    /// Parses an expectation of a run, for tests.
    #[cfg(test)]
    pub(crate) fn of_run(text: &str) -> Result<Self, ParseError> {
        Self::parse(text, EXPECT, Scope::Run)
    }
}

/// The option that an expectation comes from.
pub(crate) const EXPECT: &str = "--expect";

/// What an expectation is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// A run.
    Run,
    /// Two reports that are compared.
    TwoReports,
    /// One report of the two.
    OneReport,
}

/// One of two reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    /// The first one.
    Old,
    /// The second one.
    New,
}

/// The kind of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ValueKind {
    /// A number without a unit, or a count divided by one. Can be compared with counts and with shares.
    Number,
    /// A count of packets, attempts, flows and the like.
    Count,
    /// A time, ns.
    Time,
    /// The quotient of two values of one kind.
    Share,
    /// A count per second.
    Rate,
}

/// A side of an expectation.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum ExpressionTerm {
    /// A number in the base unit of its kind.
    Constant(Fraction),
    /// A figure of the report.
    Figure(Figure),
    /// The increase of a count per second, from the command's start to its exit.
    Rate(Box<Self>),
    /// The change of a value of this kind from one report to another: the difference of a share, of others
    /// their difference as a share of the first.
    Change(Box<Self>, ValueKind),
    /// A value of one of two reports.
    Of(Which, Box<Self>),
    /// Two terms joined by an operation.
    Pair(Box<Self>, Operation, Box<Self>),
}

impl ExpressionTerm {
    /// The figures in it, from left to right.
    pub(crate) fn figures(&self) -> Vec<&Figure> {
        match self {
            Self::Constant(_) => Vec::new(),
            Self::Figure(figure) => vec![figure],
            Self::Rate(of) | Self::Change(of, _) | Self::Of(_, of) => of.figures(),
            Self::Pair(left, _, right) => [left.figures(), right.figures()].concat(),
        }
    }

    /// Whether the term needs parentheses as a part of a pair.
    pub(crate) const fn needs_parentheses(&self, outer: Operation, first: bool) -> bool {
        match self {
            Self::Constant(_) | Self::Figure(_) | Self::Rate(_) | Self::Change(..) | Self::Of(..) => false,
            Self::Pair(_, inner, _) => match (inner, outer) {
                (Operation::Over, Operation::Over) => !first,
                (Operation::Over, Operation::Plus | Operation::Minus) | (_, Operation::Plus) => false,
                (Operation::Plus | Operation::Minus, Operation::Over) => true,
                (Operation::Plus | Operation::Minus, Operation::Minus) => !first,
            },
        }
    }
}

impl fmt::Display for ExpressionTerm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Constant(number) => write!(f, "{number}"),
            Self::Figure(figure) => write!(f, "{figure}"),
            Self::Rate(of) => write!(f, "{}({of})", name::RATE),
            Self::Change(of, _) => write!(f, "{}({of})", name::CHANGE),
            Self::Of(Which::Old, of) => write!(f, "{}({of})", name::OLD),
            Self::Of(Which::New, of) => write!(f, "{}({of})", name::NEW),
            Self::Pair(left, operation, right) => {
                let inner = |term: &Self, first: bool| {
                    if term.needs_parentheses(*operation, first) {
                        format!("({term})")
                    } else {
                        term.to_string()
                    }
                };
                write!(f, "{} {} {}", inner(left, true), operation.sign(), inner(right, false))
            }
        }
    }
}

/// An arithmetic operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    /// Addition.
    Plus,
    /// Subtraction.
    Minus,
    /// Division.
    Over,
}

impl Operation {
    /// The operation's character.
    pub(crate) const fn sign(self) -> char {
        match self {
            Self::Plus => '+',
            Self::Minus => '-',
            Self::Over => '/',
        }
    }
}

/// A comparison operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Comparator {
    /// `>=`
    AtLeast,
    /// `<=`
    AtMost,
    /// `==`
    Equal,
    /// `!=`
    Unequal,
    /// `>`
    More,
    /// `<`
    Less,
}

impl Comparator {
    /// All comparators, those of two characters first, because `>=` begins with `>`.
    const ALL: [Self; 6] = [Self::AtLeast, Self::AtMost, Self::Equal, Self::Unequal, Self::More, Self::Less];

    /// The comparator as written.
    pub(crate) const fn sign(self) -> &'static str {
        match self {
            Self::AtLeast => ">=",
            Self::AtMost => "<=",
            Self::Equal => "==",
            Self::Unequal => "!=",
            Self::More => ">",
            Self::Less => "<",
        }
    }

    /// Whether the comparison holds for sides in this order.
    pub(crate) const fn holds(self, order: Ordering) -> bool {
        match self {
            Self::AtLeast => order.is_ge(),
            Self::AtMost => order.is_le(),
            Self::Equal => order.is_eq(),
            Self::Unequal => order.is_ne(),
            Self::More => order.is_gt(),
            Self::Less => order.is_lt(),
        }
    }

    /// The comparator for exchanged sides.
    const fn mirrored(self) -> Self {
        match self {
            Self::AtLeast => Self::AtMost,
            Self::AtMost => Self::AtLeast,
            Self::More => Self::Less,
            Self::Less => Self::More,
            Self::Equal | Self::Unequal => self,
        }
    }
}

/// A range of a text, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    /// Characters before it.
    start: usize,
    /// Characters in it.
    length: usize,
}

impl Span {
    /// The range from the beginning of this one to the end of `last`.
    const fn to(self, last: Self) -> Self {
        Self { start: self.start, length: last.start + last.length - self.start }
    }
}

/// A fault and its place.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Fault {
    span: Span,
    message: String,
}

impl Fault {
    fn new(span: Span, message: impl Into<String>) -> Self {
        Self { span, message: message.into() }
    }
}

/// A text that is not an expectation. Shown on three lines: the fault, the text, and carets below the place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ParseError {
    /// Where the text is from: `--expect`.
    origin: String,
    text: String,
    fault: Fault,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Fault { span, message } = &self.fault;
        // Control characters must not reach the terminal.
        let shown: String = self.text.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
        let origin = printable(&self.origin);
        writeln!(f, "{origin}, column {}: {message}", span.start + 1)?;
        writeln!(f, "    {shown}")?;
        let columns = |from: usize, characters: usize| -> usize {
            shown.chars().skip(from).take(characters).filter_map(UnicodeWidthChar::width).sum()
        };
        let (before, below) = (columns(0, span.start), columns(span.start, span.length));
        write!(f, "    {:before$}{}", "", "^".repeat(below.max(1)))
    }
}

impl std::error::Error for ParseError {}
