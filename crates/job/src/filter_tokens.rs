//! Words, texts, numbers and signs of a filter expression, each with its place.

use crate::filter_error::FilterError;

/// A number of a filter, exact for whole numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Number {
    Whole(i64),
    Real(f64),
}

impl Number {
    /// A number as it is written: digits with at most a sign, a fraction and an exponent, and finite.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix('-').unwrap_or(text);
        // Rust also reads inf, nan, .5 and 5., none of which is a number here.
        let plain = digits.starts_with(|c: char| c.is_ascii_digit())
            && digits.ends_with(|c: char| c.is_ascii_digit())
            && digits.chars().all(|c| c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E' | '+' | '-'));
        if !plain {
            return None;
        }
        match text.parse::<i64>() {
            Ok(whole) => Some(Self::Whole(whole)),
            Err(_) => text.parse::<f64>().ok().filter(|real| real.is_finite()).map(Self::Real),
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Token {
    Word(String),
    Text(String),
    Number(Number),
    /// `$NAME`, without the sign.
    Parameter(String),
    /// `.`, `,`, `(`, `)`, `|` and comparisons.
    Sign(&'static str),
}

impl Token {
    /// What a message calls it. Texts and numbers may be values of users, so they are not repeated.
    pub(crate) fn shown(&self) -> String {
        match self {
            Self::Word(word) => format!("'{}'", word.chars().take(40).collect::<String>()),
            Self::Text(_) => "a text in quotes".to_owned(),
            Self::Number(_) => "a number".to_owned(),
            Self::Parameter(name) => format!("${}", name.chars().take(40).collect::<String>()),
            Self::Sign(sign) => format!("'{sign}'"),
        }
    }
}

/// A token and the position of its first character, from 1.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Placed {
    pub(crate) token: Token,
    pub(crate) position: usize,
}

/// Longer signs come first.
const SIGNS: [&str; 11] = ["<=", ">=", "!=", ".", ",", "(", ")", "|", "=", "<", ">"];

/// Splits a text into tokens.
///
/// A text stands in double quotes; `\"` and `\\` in it are a quote and a backslash, any other backslash is itself.
pub(crate) fn tokens(text: &str) -> Result<Vec<Placed>, FilterError> {
    let characters = text.chars().collect::<Vec<_>>();
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(&first) = characters.get(at) {
        let position = at + 1;
        let rest = characters.get(at..).unwrap_or_default();
        let while_so = |so: fn(char) -> bool| rest.iter().copied().take_while(|c| so(*c)).collect::<String>();
        let (token, length) = if first.is_whitespace() {
            at += 1;
            continue;
        } else if first == '"' {
            quoted(rest, position)?
        } else if first == '$' {
            let name = rest.iter().skip(1).copied().take_while(|c| in_word(*c)).collect::<String>();
            if name.is_empty() {
                return Err(FilterError::syntax(position, "a '$' without a name", "a parameter such as $COUNTRY"));
            }
            let length = name.chars().count() + 1;
            (Token::Parameter(name), length)
        } else if first.is_ascii_digit() || first == '-' {
            let sign = usize::from(first == '-');
            let digits = rest.iter().skip(sign).copied().take_while(in_number()).collect::<String>();
            let number = format!("{}{digits}", if sign == 1 { "-" } else { "" });
            let length = number.chars().count();
            match Number::parse(&number) {
                Some(number) => (Token::Number(number), length),
                None => return Err(FilterError::syntax(position, "no number", "a number such as 30, -1.5 or 2e6")),
            }
        } else if in_word(first) {
            let word = while_so(in_word);
            let length = word.chars().count();
            (Token::Word(word), length)
        } else if let Some(sign) = SIGNS.into_iter().find(|sign| sign.chars().eq(rest.iter().take(sign.len()).copied()))
        {
            (Token::Sign(sign), sign.len())
        } else {
            let found = format!("the character {}", first.escape_debug());
            return Err(FilterError::syntax(position, found, "words, texts in \"double quotes\", numbers and $NAMES"));
        };
        found.push(Placed { token, position });
        at += length;
    }
    Ok(found)
}

fn in_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Takes the characters of a number; a sign belongs to it right after the exponent alone.
fn in_number() -> impl FnMut(&char) -> bool {
    let mut last = '0';
    move |c| {
        let taken = in_word(*c) || *c == '.' || (matches!(*c, '+' | '-') && matches!(last, 'e' | 'E'));
        last = *c;
        taken
    }
}

fn quoted(rest: &[char], position: usize) -> Result<(Token, usize), FilterError> {
    let mut text = String::new();
    let mut at = 1;
    while let Some(&c) = rest.get(at) {
        match (c, rest.get(at + 1)) {
            ('"', _) => return Ok((Token::Text(text), at + 1)),
            ('\\', Some(&escaped @ ('"' | '\\'))) => {
                text.push(escaped);
                at += 2;
            }
            _ => {
                text.push(c);
                at += 1;
            }
        }
    }
    Err(FilterError::syntax(position, "a text whose quote is never closed", "a closing \""))
}

/// A text as [`tokens`] reads it back.
pub(crate) fn quote(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}
