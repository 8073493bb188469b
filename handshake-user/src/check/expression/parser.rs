//! Parses tokens into a tree by recursive descent, and checks the kinds of values.

use super::lexer::{Placed, Token, tokens};
use super::name::{self, CHANGE, COMPLETED, NEW, OLD, RATE};
use super::{
    Comparator, Expectation, ExpressionTerm, Fault, Fraction, Operation, Scope, Span, ValueKind, Which,
};

/// Deepest nesting of parentheses.
const DEEPEST: usize = 32;

/// Words that other languages join conditions with.
const JOINING: [&str; 2] = ["and", "or"];

/// Parses an expectation.
pub(super) fn parse(text: &str, scope: Scope) -> Result<Expectation, Fault> {
    let mut parser = Parser { tokens: tokens(text)?, at: 0, depth: 0, percent: false, scope };
    let left = parser.sum()?;
    let comparison = parser.comparison()?;
    let right = parser.sum()?;
    parser.end()?;
    let kind = compared(&left, &right)?;
    let whole = left.span.to(right.span);
    let percent = parser.percent || [&left, &right].iter().all(|side| side.kind == ValueKind::Share);
    // The measured side is put on the left.
    let (left, comparison, right) = match (left.is_constant(), right.is_constant()) {
        (true, true) => return Err(Fault::new(whole, "without a figure, the result is always the same")),
        (true, false) => (right, comparison.mirrored(), left),
        (false, _) => (left, comparison, right),
    };
    let (left, right) = (left.term, right.term);
    Ok(Expectation { text: text.trim().to_owned(), left, comparison, right, kind, percent })
}

/// A term with its kind and its place.
struct Typed {
    term: ExpressionTerm,
    kind: ValueKind,
    span: Span,
}

impl Typed {
    fn is_constant(&self) -> bool {
        matches!(self.term, ExpressionTerm::Constant(_))
    }
}

struct Parser {
    tokens: Vec<Placed>,
    at: usize,
    depth: usize,
    /// Whether a literal was given in percent.
    percent: bool,
    /// What it is about at this place.
    scope: Scope,
}

impl Parser {
    fn peek(&self) -> &Token {
        &self.tokens[self.at].0
    }

    fn span(&self) -> Span {
        self.tokens[self.at].1
    }

    /// Takes the next token. [`Token::End`] is never consumed.
    fn take(&mut self) -> Placed {
        let placed = self.tokens[self.at].clone();
        self.at = (self.at + 1).min(self.tokens.len() - 1);
        placed
    }

    fn take_sign(&mut self, sign: char) -> bool {
        let found = *self.peek() == Token::Sign(sign);
        if found {
            self.take();
        }
        found
    }

    fn sum(&mut self) -> Result<Typed, Fault> {
        let mut sum = self.quotient()?;
        loop {
            let operation = match self.peek() {
                Token::Sign('+') => Operation::Plus,
                Token::Sign('-') => Operation::Minus,
                Token::Sign(_)
                | Token::Name(_)
                | Token::Number(_)
                | Token::Selectors(_)
                | Token::Comparison(_)
                | Token::End => return Ok(sum),
            };
            self.take();
            let next = self.quotient()?;
            let kind = added(&sum, &next)?;
            sum = pair(sum, operation, next, kind)?;
        }
    }

    fn quotient(&mut self) -> Result<Typed, Fault> {
        let mut quotient = self.value()?;
        while self.take_sign('/') {
            let divisor = self.value()?;
            let kind = divided(&quotient, &divisor)?;
            quotient = pair(quotient, Operation::Over, divisor, kind)?;
        }
        Ok(quotient)
    }

    fn value(&mut self) -> Result<Typed, Fault> {
        match self.take() {
            (Token::Number(number), span) => self.literal(number, span),
            (Token::Sign('-'), minus) if matches!(self.peek(), Token::Number(_)) => {
                let literal = self.value()?;
                let kind = literal.kind;
                let zero = Typed { term: ExpressionTerm::Constant(Fraction::ZERO), kind, span: minus };
                pair(zero, Operation::Minus, literal, kind)
            }
            (Token::Name(name), span) if *self.peek() == Token::Sign('(') => self.call(&name, span),
            (Token::Name(name), span) => self.figure(&name, span),
            (Token::Sign('('), open) => self.parenthesised(open),
            (Token::End, span) => Err(Fault::new(span, "a figure or a number is missing")),
            (Token::Comparison(_) | Token::Sign(_) | Token::Selectors(_), span) => {
                Err(Fault::new(span, "a figure or a number is expected here"))
            }
        }
    }

    fn parenthesised(&mut self, open: Span) -> Result<Typed, Fault> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(Fault::new(open, "parentheses are nested too deeply"));
        }
        let inner = self.sum()?;
        let close = self.close(open)?;
        self.depth -= 1;
        Ok(Typed { span: open.to(close), ..inner })
    }

    fn close(&mut self, open: Span) -> Result<Span, Fault> {
        let span = self.span();
        if self.take_sign(')') { Ok(span) } else { Err(Fault::new(open, "the closing ')' is missing")) }
    }

    /// A number with its unit: `%`, a unit of time, or `/s`.
    fn literal(&mut self, number: Fraction, span: Span) -> Result<Typed, Fault> {
        let unit_at = self.span();
        let per_second = *self.peek() == Token::Sign('/')
            && self.tokens.get(self.at + 1).is_some_and(|(token, _)| *token == Token::Name("s".to_owned()));
        let (scale, kind) = if per_second {
            self.take();
            (Some(Fraction::from(1_u64)), ValueKind::Rate)
        } else if let Token::Name(unit) = self.peek() {
            (Some(unit_of_time(unit, unit_at)?), ValueKind::Time)
        } else if *self.peek() == Token::Sign('%') {
            self.percent = true;
            (Fraction::new(1, 100), ValueKind::Share)
        } else {
            return Ok(Typed { term: ExpressionTerm::Constant(number), kind: ValueKind::Number, span });
        };
        let (_, last) = self.take();
        let number = scale.and_then(|scale| number.times(scale));
        let number = number.ok_or_else(|| Fault::new(span, "the number is too large"))?;
        Ok(Typed { term: ExpressionTerm::Constant(number), kind, span: span.to(last) })
    }

    fn figure(&mut self, name: &str, span: Span) -> Result<Typed, Fault> {
        let (written, last) = self.selectors(span);
        let (figure, kind) = name::figure(name, span, &written)?;
        Ok(Typed { term: ExpressionTerm::Figure(figure), kind, span: span.to(last) })
    }

    /// The selectors, if there are any, and where they end; what is at `before` ends without them.
    fn selectors(&mut self, before: Span) -> (Vec<(String, String, Span)>, Span) {
        let found = match self.peek() {
            Token::Selectors(written) => (written.clone(), self.span()),
            Token::Name(_) | Token::Number(_) | Token::Comparison(_) | Token::Sign(_) | Token::End => {
                return (Vec::new(), before);
            }
        };
        self.take();
        found
    }

    /// `p99(connect)`, `p99(connect{port=443})`, `rate(completed)`.
    fn call(&mut self, function: &str, span: Span) -> Result<Typed, Fault> {
        let (_, open) = self.take();
        match function {
            RATE => return self.rate(span, open),
            CHANGE | OLD | NEW => return self.compare(function, span, open),
            _ => {}
        }
        let (leg, leg_at) = match self.take() {
            (Token::Name(leg), leg_at) => (leg, leg_at),
            (
                Token::Number(_) | Token::Selectors(_) | Token::Comparison(_) | Token::Sign(_) | Token::End,
                leg_at,
            ) => (String::new(), leg_at),
        };
        let completed = self.of_completed()?;
        let (written, _) = self.selectors(leg_at);
        let (figure, kind) = name::of_leg((function, span), (&leg, leg_at), completed, &written)?;
        let close = self.close(open)?;
        Ok(Typed { term: ExpressionTerm::Figure(figure), kind, span: span.to(close) })
    }

    /// `of completed`, if it is there.
    fn of_completed(&mut self) -> Result<bool, Fault> {
        if *self.peek() != Token::Name("of".to_owned()) {
            return Ok(false);
        }
        self.take();
        match self.take() {
            (Token::Name(word), _) if word == COMPLETED => Ok(true),
            (_, span) => Err(Fault::new(span, format!("'of' is followed by {COMPLETED}"))),
        }
    }

    /// `change(p99(connect))`, `old(attempts)`, `new(attempts)`.
    fn compare(&mut self, function: &str, span: Span, open: Span) -> Result<Typed, Fault> {
        match self.scope {
            Scope::TwoReports => {}
            Scope::Run => {
                let message = format!("{function} compares two reports: handshake diff OLD NEW");
                return Err(Fault::new(span, message));
            }
            Scope::OneReport => {
                return Err(Fault::new(span, format!("{function} is of figures, and of no other {CHANGE}")));
            }
        }
        self.scope = Scope::OneReport;
        let of = self.parenthesised(open)?;
        self.scope = Scope::TwoReports;
        if of.is_constant() {
            return Err(Fault::new(of.span, format!("{function} takes a figure: {function}(completed)")));
        }
        let whole = span.to(of.span);
        let (inner, kind) = (Box::new(of.term), of.kind);
        let (term, kind) = match function {
            OLD => (ExpressionTerm::Of(Which::Old, inner), kind),
            NEW => (ExpressionTerm::Of(Which::New, inner), kind),
            _ => (ExpressionTerm::Change(inner, kind), ValueKind::Share),
        };
        Ok(Typed { term, kind, span: whole })
    }

    fn rate(&mut self, span: Span, open: Span) -> Result<Typed, Fault> {
        let of = self.parenthesised(open)?;
        if of.is_constant() || !matches!(of.kind, ValueKind::Count | ValueKind::Number) {
            return Err(Fault::new(of.span, "rate takes a count: rate(completed)"));
        }
        Ok(Typed {
            span: span.to(of.span),
            term: ExpressionTerm::Rate(Box::new(of.term)),
            kind: ValueKind::Rate,
        })
    }

    fn comparison(&mut self) -> Result<Comparator, Fault> {
        match self.take() {
            (Token::Comparison(comparison), _) => Ok(comparison),
            (Token::End, span) => {
                let signs = Comparator::ALL.map(Comparator::sign).join(" ");
                Err(Fault::new(span, format!("a comparison is missing: one of {signs}")))
            }
            (Token::Selectors(_), span) => {
                Err(Fault::new(span, "selectors come directly after a figure's name"))
            }
            (Token::Sign(_) | Token::Name(_) | Token::Number(_), span) => {
                Err(Fault::new(span, "a comparison is expected here"))
            }
        }
    }

    fn end(&mut self) -> Result<(), Fault> {
        match self.take() {
            (Token::End, _) => Ok(()),
            (Token::Comparison(_), span) => {
                Err(Fault::new(span, "one comparison each: --expect twice, or ; between"))
            }
            (Token::Name(word), span) if JOINING.contains(&word.as_str()) => {
                Err(Fault::new(span, joins_nothing(&word)))
            }
            (Token::Sign(_) | Token::Name(_) | Token::Number(_) | Token::Selectors(_), span) => {
                Err(Fault::new(span, "the expectation should end here"))
            }
        }
    }
}

fn joins_nothing(word: &str) -> String {
    format!("'{word}' joins nothing: --expect twice, or ; between")
}

/// The units of time, with their length in ns.
const UNITS: [(&str, u64); 6] = [
    ("ns", 1),
    ("us", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60 * 1_000_000_000),
    ("h", 3_600 * 1_000_000_000),
];

fn unit_of_time(unit: &str, span: Span) -> Result<Fraction, Fault> {
    let unit = if unit == "µs" { "us" } else { unit };
    let scale = UNITS.iter().find(|(name, _)| *name == unit).map(|(_, scale)| Fraction::from(*scale));
    scale.ok_or_else(|| {
        Fault::new(
            span,
            match unit {
                word if JOINING.contains(&word) => joins_nothing(word),
                _ => format!("'{unit}' is not a unit: use ns, us, ms, s, m, h, % or /s"),
            },
        )
    })
}

/// Joins two terms; the result of two numbers is computed at once.
fn pair(left: Typed, operation: Operation, right: Typed, kind: ValueKind) -> Result<Typed, Fault> {
    let span = left.span.to(right.span);
    let (ExpressionTerm::Constant(a), ExpressionTerm::Constant(b)) = (&left.term, &right.term) else {
        let term = ExpressionTerm::Pair(Box::new(left.term), operation, Box::new(right.term));
        return Ok(Typed { term, kind, span });
    };
    let result = match operation {
        Operation::Plus => a.plus(*b),
        Operation::Minus => a.minus(*b),
        Operation::Over => a.over(*b),
    };
    let result = result.ok_or_else(|| Fault::new(span, "the number is too large"))?;
    Ok(Typed { term: ExpressionTerm::Constant(result), kind, span })
}

/// The common kind of a comparison's sides.
fn compared(left: &Typed, right: &Typed) -> Result<ValueKind, Fault> {
    common(left.kind, right.kind).ok_or_else(|| {
        let message = match (left.kind, right.kind) {
            (ValueKind::Time, ValueKind::Number) | (ValueKind::Number, ValueKind::Time) => {
                "a time needs its unit: 2ms"
            }
            (ValueKind::Rate, ValueKind::Number) | (ValueKind::Number, ValueKind::Rate) => {
                "a rate needs its unit: 500/s"
            }
            (ValueKind::Count, ValueKind::Share) | (ValueKind::Share, ValueKind::Count) => {
                "a count is not a share: a share is completed / attempts"
            }
            (ValueKind::Count, ValueKind::Rate) | (ValueKind::Rate, ValueKind::Count) => {
                "a count is not a rate: a rate is rate(completed)"
            }
            (
                ValueKind::Number | ValueKind::Count | ValueKind::Time | ValueKind::Share | ValueKind::Rate,
                ValueKind::Number | ValueKind::Count | ValueKind::Time | ValueKind::Share | ValueKind::Rate,
            ) => return Fault::new(right.span, unlike(left.kind, right.kind, "cannot be compared with")),
        };
        Fault::new(right.span, message)
    })
}

/// The kind of a sum or a difference.
fn added(left: &Typed, right: &Typed) -> Result<ValueKind, Fault> {
    common(left.kind, right.kind)
        .ok_or_else(|| Fault::new(right.span, unlike(left.kind, right.kind, "cannot be summed with")))
}

/// The kind of a quotient.
fn divided(left: &Typed, right: &Typed) -> Result<ValueKind, Fault> {
    if right.term == ExpressionTerm::Constant(Fraction::ZERO) {
        return Err(Fault::new(right.span, "division by 0"));
    }
    match (left.kind, right.kind) {
        (ValueKind::Count | ValueKind::Number, ValueKind::Number) => Ok(ValueKind::Number),
        (kind, ValueKind::Number) => Ok(kind),
        (ValueKind::Count | ValueKind::Number, ValueKind::Count)
        | (ValueKind::Time, ValueKind::Time)
        | (ValueKind::Rate, ValueKind::Rate) => Ok(ValueKind::Share),
        (
            ValueKind::Number | ValueKind::Count | ValueKind::Time | ValueKind::Share | ValueKind::Rate,
            ValueKind::Count | ValueKind::Time | ValueKind::Share | ValueKind::Rate,
        ) => Err(Fault::new(right.span, unlike(left.kind, right.kind, "cannot be divided by"))),
    }
}

/// The common kind of two values. A bare number matches counts and shares.
fn common(left: ValueKind, right: ValueKind) -> Option<ValueKind> {
    match (left, right) {
        _ if left == right => Some(left),
        (ValueKind::Number, ValueKind::Count | ValueKind::Share) => Some(right),
        (ValueKind::Count | ValueKind::Share, ValueKind::Number) => Some(left),
        (
            ValueKind::Number | ValueKind::Count | ValueKind::Time | ValueKind::Share | ValueKind::Rate,
            ValueKind::Number | ValueKind::Count | ValueKind::Time | ValueKind::Share | ValueKind::Rate,
        ) => None,
    }
}

fn unlike(left: ValueKind, right: ValueKind, how: &str) -> String {
    let named = |kind| match kind {
        ValueKind::Number => "a number",
        ValueKind::Count => "a count",
        ValueKind::Time => "a time",
        ValueKind::Share => "a share",
        ValueKind::Rate => "a rate",
    };
    format!("{} {how} {}", named(left), named(right))
}
