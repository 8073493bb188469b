//! Splits the text of an expectation into tokens, each with its place.

use super::{Comparator, Fault, Fraction, Span};

/// Most digits of a number. No sensible limit has more.
const MOST_DIGITS: usize = 18;

/// A token of an expectation.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    /// `completed`, `udp.flows`, `ms`
    Name(String),
    /// `99.9`
    Number(Fraction),
    /// `{port=443}`: name, value and place of each selector.
    Selectors(Vec<(String, String, Span)>),
    /// `>=`
    Comparison(Comparator),
    /// One of `+ - / % ( )`.
    Sign(char),
    /// The end of the text.
    End,
}

/// A token and its place.
pub(super) type Placed = (Token, Span);

/// The tokens of a text; the last one is [`Token::End`].
pub(super) fn tokens(text: &str) -> Result<Vec<Placed>, Fault> {
    let mut lexer = Lexer { characters: text.chars().collect(), at: 0 };
    let mut all = Vec::new();
    loop {
        let placed = lexer.next()?;
        let ended = placed.0 == Token::End;
        all.push(placed);
        if ended {
            return Ok(all);
        }
    }
}

struct Lexer {
    characters: Vec<char>,
    at: usize,
}

impl Lexer {
    fn next(&mut self) -> Result<Placed, Fault> {
        self.take_while(char::is_whitespace);
        let start = self.at;
        let Some(first) = self.peek() else {
            return Ok((Token::End, Span { start, length: 1 }));
        };
        let token = match first {
            '0'..='9' => self.number()?,
            '{' => self.selectors()?,
            '+' | '-' | '/' | '%' | '(' | ')' => {
                self.at += 1;
                Token::Sign(first)
            }
            '>' | '<' | '=' | '!' => self.comparison()?,
            _ if is_of_name(first) => Token::Name(self.take_while(is_of_name)),
            _ => return Err(self.unexpected(first)),
        };
        Ok((token, self.span_from(start)))
    }

    fn peek(&self) -> Option<char> {
        self.characters.get(self.at).copied()
    }

    fn span_from(&self, start: usize) -> Span {
        Span { start, length: self.at - start }
    }

    fn take_while(&mut self, wanted: impl Fn(char) -> bool) -> String {
        let taken: String = self.characters[self.at..].iter().take_while(|c| wanted(**c)).collect();
        self.at += taken.chars().count();
        taken
    }

    /// A number: digits, optionally with a point and decimals.
    fn number(&mut self) -> Result<Token, Fault> {
        let start = self.at;
        let whole = self.take_while(|c| c.is_ascii_digit());
        let mut decimals = String::new();
        if self.peek() == Some('.') {
            self.at += 1;
            decimals = self.take_while(|c| c.is_ascii_digit());
            if decimals.is_empty() {
                return Err(Fault::new(self.span_from(start), "digits are missing after the point"));
            }
        }
        let span = self.span_from(start);
        if whole.len() + decimals.len() > MOST_DIGITS {
            return Err(Fault::new(span, format!("a number has at most {MOST_DIGITS} digits")));
        }
        let scale = 10_i128.pow(u32::try_from(decimals.len()).unwrap_or(0));
        let digits = format!("{whole}{decimals}").parse();
        let number = digits.ok().and_then(|digits: i128| Fraction::new(digits, scale));
        number.map(Token::Number).ok_or_else(|| Fault::new(span, "not a number"))
    }

    fn comparison(&mut self) -> Result<Token, Fault> {
        let start = self.at;
        for comparison in Comparator::ALL {
            let sign = comparison.sign();
            if self.characters[start..].starts_with(&sign.chars().collect::<Vec<_>>()) {
                self.at += sign.len();
                return Ok(Token::Comparison(comparison));
            }
        }
        self.at += 1;
        let meant = if self.characters[start] == '=' { "==" } else { "!=" };
        Err(Fault::new(
            self.span_from(start),
            format!("'{}' is not a comparison; did you mean {meant}?", self.characters[start]),
        ))
    }

    /// Selectors: `{name=value,…}`. A value extends to the next comma or brace, because addresses have colons
    /// and points.
    fn selectors(&mut self) -> Result<Token, Fault> {
        let open = self.at;
        let mut all = Vec::new();
        loop {
            // The brace or the comma.
            self.at += 1;
            let start = self.at;
            let text = self.take_while(|c| c != ',' && c != '}');
            let span = self.span_from(start);
            let Some(ending) = self.peek() else {
                return Err(Fault::new(self.span_from(open), "the closing '}' is missing"));
            };
            let Some((name, value)) = text.split_once('=') else {
                return Err(Fault::new(span, "a selector is NAME=VALUE: {port=443}"));
            };
            all.push((name.trim().to_owned(), value.trim().to_owned(), span));
            if ending == '}' {
                self.at += 1;
                return Ok(Token::Selectors(all));
            }
        }
    }

    fn unexpected(&self, first: char) -> Fault {
        let message = match first {
            '*' => "there is no multiplication: divide the other side instead".to_owned(),
            '&' | '|' => "one comparison each: --expect twice, or ; between".to_owned(),
            '}' => "the opening '{' is missing".to_owned(),
            _ => format!("'{}' is not expected here", first.escape_debug()),
        };
        Fault::new(Span { start: self.at, length: 1 }, message)
    }
}

/// Whether a character belongs to a name: the path of a figure, or a unit.
fn is_of_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '.'
}
