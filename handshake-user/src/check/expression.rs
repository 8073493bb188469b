//! The language of `--expect`: `completed / attempts >= 99.9%`. Text in, a checked tree out. Pure.
//!
//! ```text
//! expectation = sum COMPARISON sum                    COMPARISON: >= <= == != > <
//! sum         = quotient { ("+" | "-") quotient }
//! quotient    = value { "/" value }
//! value       = [ "-" ] NUMBER [ "%" | UNIT | "/" "s" ] | figure | FUNCTION "(" LEG ")" | "rate" "(" sum ")" | "(" sum ")"
//! figure      = NAME [ "{" SELECTOR "=" VALUE { "," SELECTOR "=" VALUE } "}" ]
//! ```
//!
//! What is compared must be of one kind: counts, times, shares or rates. Whatever a text does wrong is told with the
//! place where it does, before anything is attached.

mod fraction;
mod lexer;
pub(crate) mod name;
mod parser;
#[cfg(test)]
mod tests;

use std::cmp::Ordering;
use std::fmt;

pub(crate) use fraction::Fraction;
pub(crate) use name::Figure;
use unicode_width::UnicodeWidthChar;

/// A condition on a report's figures.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Expectation {
    /// As it was written.
    pub(crate) text: String,
    /// What is measured: names at least one figure.
    pub(crate) left: ExpressionTerm,
    /// How the sides must compare.
    pub(crate) comparison: Comparator,
    /// What it is held against.
    pub(crate) right: ExpressionTerm,
    /// What both sides are.
    pub(crate) kind: ValueKind,
    /// Shares are spoken of in percent here.
    pub(crate) percent: bool,
}

impl Expectation {
    /// Reads a text.
    ///
    /// # Errors
    ///
    /// What is wrong with it, and where.
    pub(crate) fn parse(text: &str) -> Result<Self, ParseError> {
        parser::parse(text).map_err(|fault| ParseError { text: text.to_owned(), fault })
    }
}

/// What a number is a number of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ValueKind {
    /// Written without a unit, or a count divided by such a number: is compared with counts and shares alike.
    Number,
    /// So many of something.
    Count,
    /// Nanoseconds.
    Time,
    /// One figure divided by another of its kind.
    Share,
    /// So many a second.
    Rate,
}

/// A side of an expectation.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum ExpressionTerm {
    /// A literal, in the base unit of its kind.
    Constant(Fraction),
    /// A figure of the report.
    Figure(Figure),
    /// What a count rose by a second, from the command's start to its exit.
    Rate(Box<Self>),
    /// Two terms together.
    Pair(Box<Self>, Operation, Box<Self>),
}

impl ExpressionTerm {
    /// The figures it names, from left to right.
    pub(crate) fn figures(&self) -> Vec<&Figure> {
        match self {
            Self::Constant(_) => Vec::new(),
            Self::Figure(figure) => vec![figure],
            Self::Rate(of) => of.figures(),
            Self::Pair(left, _, right) => [left.figures(), right.figures()].concat(),
        }
    }

    /// Whether parentheses stand around this one as a part of a pair.
    pub(crate) const fn needs_parentheses(&self, outer: Operation, first: bool) -> bool {
        match self {
            Self::Constant(_) | Self::Figure(_) | Self::Rate(_) => false,
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
            Self::Rate(of) => write!(f, "rate({of})"),
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

/// How two terms come together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    /// The sum.
    Plus,
    /// The difference.
    Minus,
    /// The quotient.
    Over,
}

impl Operation {
    /// As it is written.
    pub(crate) const fn sign(self) -> char {
        match self {
            Self::Plus => '+',
            Self::Minus => '-',
            Self::Over => '/',
        }
    }
}

/// How two sides compare.
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
    /// All, the longer spellings first: `>=` begins with `>`.
    const ALL: [Self; 6] = [Self::AtLeast, Self::AtMost, Self::Equal, Self::Unequal, Self::More, Self::Less];

    /// As it is written.
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

    /// Whether sides in this order are as wanted.
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

    /// The same with its sides exchanged.
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

/// A part of a text, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    /// Characters before it.
    start: usize,
    /// Its own.
    length: usize,
}

impl Span {
    /// From the beginning of this one to the end of `last`.
    const fn to(self, last: Self) -> Self {
        Self { start: self.start, length: last.start + last.length - self.start }
    }
}

/// What is wrong, and where.
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

/// A text that is no expectation. Shown on three lines: what is wrong, the text, and carets below the place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ParseError {
    text: String,
    fault: Fault,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Fault { span, message } = &self.fault;
        // Nothing in the text may steer the terminal.
        let shown: String = self.text.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
        writeln!(f, "--expect, column {}: {message}", span.start + 1)?;
        writeln!(f, "    {shown}")?;
        let columns = |from: usize, characters: usize| -> usize {
            shown.chars().skip(from).take(characters).filter_map(UnicodeWidthChar::width).sum()
        };
        let (before, below) = (columns(0, span.start), columns(span.start, span.length));
        write!(f, "    {:before$}{}", "", "^".repeat(below.max(1)))
    }
}

impl std::error::Error for ParseError {}
