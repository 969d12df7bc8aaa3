//! From the tokens of a filter expression to what it says.

use crate::filter_error::FilterError;
use crate::filter_expression::{
    Action, Comparison, Condition, Expression, FilterExpression, MOST_CHARACTERS, Subject, Test, Value,
};
use crate::filter_tokens::{Number, Placed, Token, tokens};

/// Reads a filter; it has no parentheses around conditions, so nothing here recurs.
pub(crate) fn parse(text: &str) -> Result<FilterExpression, FilterError> {
    let characters = text.chars().count();
    if text.trim().is_empty() || characters > MOST_CHARACTERS {
        return Err(FilterError::Length { found: characters, most: MOST_CHARACTERS });
    }
    let mut parser = Parser { tokens: tokens(text)?, at: 0, end: characters + 1 };
    let mut expressions = vec![parser.expression()?];
    while !parser.ended() {
        parser.sign("|", "AND, OR, | or the end")?;
        expressions.push(parser.expression()?);
    }
    Ok(FilterExpression { expressions })
}

struct Parser {
    tokens: Vec<Placed>,
    at: usize,
    end: usize,
}

impl Parser {
    fn expression(&mut self) -> Result<Expression, FilterError> {
        let action = match self.keyword(&["INCLUDE", "EXCLUDE"], "INCLUDE or EXCLUDE")? {
            "INCLUDE" => Action::Include,
            _ => Action::Exclude,
        };
        self.keyword(&["UserID"], "UserID: segments hold users")?;
        self.keyword(&["WHERE"], "WHERE")?;
        let first = self.condition()?;
        let of_users = matches!(first.subject, Subject::Field(_));
        let mut any_of = vec![vec![first]];
        while let Some(joined) = self.next_keyword(&["AND", "OR"]) {
            let next = self.condition()?;
            if matches!(next.subject, Subject::Field(_)) != of_users {
                let other = if of_users { "Interactions" } else { "Users" };
                let expected = "conditions of one data set in one expression; join expressions with |";
                return Err(FilterError::syntax(next.position, format!("a condition over {other}"), expected));
            }
            match any_of.last_mut() {
                Some(all_of) if joined == "AND" => all_of.push(next),
                _ => any_of.push(vec![next]),
            }
        }
        Ok(Expression { action, any_of })
    }

    fn condition(&mut self) -> Result<Condition, FilterError> {
        let position = self.position();
        let data_set = self.keyword(&["Users", "Interactions"], "Users. or Interactions.EVENT_TYPE")?;
        self.sign(".", &format!("'.' after {data_set}"))?;
        if data_set == "Interactions" {
            self.keyword(&["EVENT_TYPE"], "EVENT_TYPE, the only field of Interactions that a filter may ask for")?;
            let test = self.in_list("IN or NOT IN with event types")?;
            return Ok(Condition { subject: Subject::EventType, test, position });
        }
        let field = match self.peek() {
            Some(Token::Word(name)) => name.clone(),
            _ => return Err(self.unexpected("the name of a column of Users")),
        };
        self.at += 1;
        let comparison = match self.peek() {
            Some(Token::Sign(sign)) => Comparison::ALL.iter().find(|(known, _)| known == sign).map(|(_, kind)| *kind),
            _ => None,
        };
        let test = match comparison {
            Some(comparison) => {
                self.at += 1;
                let value = match self.peek() {
                    Some(Token::Number(number)) => Value::Literal(*number),
                    Some(Token::Parameter(name)) => Value::Parameter(name.clone()),
                    _ => return Err(self.unexpected("a number or $NAME; texts are asked for with IN")),
                };
                self.at += 1;
                Test::Compare { comparison, value }
            }
            None => self.in_list(
                "IN, NOT IN, =, !=, <, <=, > or >=; anything else can be asked for in SQL with --users-filter",
            )?,
        };
        Ok(Condition { subject: Subject::Field(field), test, position })
    }

    fn in_list(&mut self, expected: &str) -> Result<Test, FilterError> {
        let negated = self.next_keyword(&["NOT"]).is_some();
        self.keyword(&["IN"], expected)?;
        self.sign("(", "'(' before the values")?;
        let mut values = Vec::new();
        loop {
            values.push(match self.peek() {
                Some(Token::Text(text)) => Value::Literal(text.clone()),
                Some(Token::Parameter(name)) => Value::Parameter(name.clone()),
                _ => return Err(self.unexpected("a text in \"double quotes\" or $NAME")),
            });
            self.at += 1;
            if self.peek() == Some(&Token::Sign(")")) {
                self.at += 1;
                return Ok(Test::In { negated, values });
            }
            self.sign(",", "',' or ')'")?;
        }
    }

    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at).map(|placed| &placed.token)
    }

    fn ended(&self) -> bool {
        self.at >= self.tokens.len()
    }

    fn position(&self) -> usize {
        self.tokens.get(self.at).map_or(self.end, |placed| placed.position)
    }

    fn unexpected(&self, expected: &str) -> FilterError {
        let found = self.peek().map_or_else(|| "the end".to_owned(), Token::shown);
        FilterError::syntax(self.position(), format!("found {found}"), expected)
    }

    fn sign(&mut self, sign: &'static str, expected: &str) -> Result<(), FilterError> {
        if self.peek() != Some(&Token::Sign(sign)) {
            return Err(self.unexpected(expected));
        }
        self.at += 1;
        Ok(())
    }

    /// Takes one of these words, in any case, and gives it as it is listed.
    fn keyword(&mut self, words: &[&'static str], expected: &str) -> Result<&'static str, FilterError> {
        self.next_keyword(words).ok_or_else(|| self.unexpected(expected))
    }

    fn next_keyword(&mut self, words: &[&'static str]) -> Option<&'static str> {
        let Some(Token::Word(found)) = self.peek() else { return None };
        let word = words.iter().copied().find(|word| word.eq_ignore_ascii_case(found))?;
        self.at += 1;
        Some(word)
    }
}

/// The values of a parameter as `filterValues` writes them: `"Japan"`, `"horror","comedy"` or `30`.
pub(crate) fn parse_values(text: &str) -> Result<Vec<Token>, FilterError> {
    let placed = tokens(text)?;
    let mut values = Vec::new();
    for (number, Placed { token, position }) in placed.iter().enumerate() {
        let fits = match token {
            Token::Text(_) | Token::Number(_) => number % 2 == 0,
            Token::Sign(",") => number % 2 == 1,
            _ => false,
        };
        if !fits {
            let expected = "texts in \"double quotes\" or numbers, with commas between them";
            return Err(FilterError::syntax(*position, format!("found {}", token.shown()), expected));
        }
        values.extend((token != &Token::Sign(",")).then(|| token.clone()));
    }
    if values.len() * 2 != placed.len() + 1 {
        return Err(FilterError::syntax(text.chars().count() + 1, "found the end", "a value"));
    }
    Ok(values)
}

/// A value where a number is asked for: a number, or a text that is one.
pub(crate) fn number_of(token: &Token) -> Option<Number> {
    match token {
        Token::Number(number) => Some(*number),
        Token::Text(text) => Number::parse(text.trim()),
        _ => None,
    }
}
