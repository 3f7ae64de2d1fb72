//! From an expression's text to its tree, by recursive descent.

use std::ops::Range;

use wildmatch::WildMatch;

use super::known::{self, Kind, Unit, Unknown, nearest_word};
use super::{Comparison, Node, Order, Test};

/// How deep parentheses and `!` may be nested.
const MAX_DEPTH: usize = 32;

/// What is wrong, and where in the text, in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    at: Range<usize>,
    message: String,
}

impl Wrong {
    fn new(at: &Range<usize>, message: impl Into<String>) -> Self {
        Self { at: at.clone(), message: message.into() }
    }

    /// The message, with the expression and marks below the place.
    pub fn shown_in(&self, text: &str) -> String {
        let before = text.get(..self.at.start).unwrap_or(text).chars().count();
        let marked = text.get(self.at.clone()).unwrap_or_default().chars().count();
        let shown: String =
            text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
        format!(
            "{}\n  {shown}\n  {}{}",
            self.message,
            " ".repeat(before),
            "^".repeat(marked.max(1))
        )
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    /// A path, a number, or text without quotes.
    Word(String),
    Quoted(String),
    Compare(&'static str),
    And,
    Or,
    Not,
    Open,
    Close,
}

type Spanned = (Token, Range<usize>);

/// Operators, the longer ones first.
const OPERATORS: [(&str, Token); 12] = [
    ("==", Token::Compare("==")),
    ("!=", Token::Compare("!=")),
    ("<=", Token::Compare("<=")),
    (">=", Token::Compare(">=")),
    ("&&", Token::And),
    ("||", Token::Or),
    ("<", Token::Compare("<")),
    (">", Token::Compare(">")),
    ("~", Token::Compare("~")),
    ("!", Token::Not),
    ("(", Token::Open),
    (")", Token::Close),
];

/// Characters that end a word.
fn ends_word(c: char) -> bool {
    c.is_whitespace() || "()!&|=<>~\"'".contains(c)
}

fn tokens(text: &str) -> Result<Vec<Spanned>, Wrong> {
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(first) = text[at..].chars().next() {
        let rest = &text[at..];
        let operator = OPERATORS.iter().find(|(symbol, _)| rest.starts_with(symbol));
        let (token, length) = if first.is_whitespace() {
            at += first.len_utf8();
            continue;
        } else if let Some((symbol, token)) = operator {
            (token.clone(), symbol.len())
        } else if first == '"' || first == '\'' {
            quoted(rest, first).ok_or_else(|| {
                Wrong::new(&(at..text.len()), format!("the text has no closing {first}"))
            })?
        } else if ends_word(first) {
            let doubled = format!("write {first}{first}");
            return Err(Wrong::new(&(at..at + 1), doubled));
        } else {
            let end = rest.find(ends_word).unwrap_or(rest.len());
            (Token::Word(rest[..end].to_owned()), end)
        };
        tokens.push((token, at..at + length));
        at += length;
    }
    Ok(tokens)
}

/// Text in quotes, and how many bytes it takes with them. A backslash keeps the next character.
fn quoted(text: &str, quote: char) -> Option<(Token, usize)> {
    let mut inside = String::new();
    let mut characters = text.char_indices().skip(1);
    while let Some((at, c)) = characters.next() {
        match c {
            '\\' => inside.push(characters.next()?.1),
            c if c == quote => return Some((Token::Quoted(inside), at + c.len_utf8())),
            c => inside.push(c),
        }
    }
    None
}

pub fn parse(text: &str) -> Result<Node, Wrong> {
    let mut parser = Parser { tokens: tokens(text)?, next: 0, end: text.len() };
    let node = parser.any(0)?;
    match parser.peek() {
        None => Ok(node),
        Some((Token::Close, at)) => Err(Wrong::new(at, "no ( is open here")),
        Some((_, at)) => Err(Wrong::new(at, "write && or || between comparisons")),
    }
}

struct Parser {
    tokens: Vec<Spanned>,
    next: usize,
    /// Where the text ends.
    end: usize,
}

impl Parser {
    fn peek(&self) -> Option<&Spanned> {
        self.tokens.get(self.next)
    }

    /// Takes the next token if it is this one.
    fn take(&mut self, wanted: &Token) -> bool {
        let is_it = self.peek().is_some_and(|(token, _)| token == wanted);
        self.next += usize::from(is_it);
        is_it
    }

    /// Where the next token is, or where the text ends.
    fn place(&self) -> Range<usize> {
        self.peek().map_or(self.end..self.end, |(_, at)| at.clone())
    }

    fn any(&mut self, depth: usize) -> Result<Node, Wrong> {
        let first = self.all(depth)?;
        let mut nodes = vec![first];
        while self.take(&Token::Or) {
            nodes.push(self.all(depth)?);
        }
        Ok(if nodes.len() == 1 { nodes.remove(0) } else { Node::Any(nodes) })
    }

    fn all(&mut self, depth: usize) -> Result<Node, Wrong> {
        let first = self.one(depth)?;
        let mut nodes = vec![first];
        while self.take(&Token::And) {
            nodes.push(self.one(depth)?);
        }
        Ok(if nodes.len() == 1 { nodes.remove(0) } else { Node::All(nodes) })
    }

    fn one(&mut self, depth: usize) -> Result<Node, Wrong> {
        let at = self.place();
        if depth >= MAX_DEPTH {
            return Err(Wrong::new(&at, "nested too deeply"));
        }
        if self.take(&Token::Not) {
            return Ok(Node::Not(Box::new(self.one(depth + 1)?)));
        }
        if self.take(&Token::Open) {
            let node = self.any(depth + 1)?;
            return match self.take(&Token::Close) {
                true => Ok(node),
                false => Err(Wrong::new(&self.place(), "the ( is not closed here")),
            };
        }
        self.comparison().map(Node::Is)
    }

    fn comparison(&mut self) -> Result<Comparison, Wrong> {
        let (path, at) = self.path()?;
        let kind = known::kind(&path).map_err(|unknown| no_field(&path, &at, unknown))?;
        let operator_at = self.place();
        let Some((Token::Compare(operator), _)) = self.peek() else {
            return Err(Wrong::new(&operator_at, "a comparison belongs here: == != < <= > >= ~"));
        };
        let operator = *operator;
        self.next += 1;
        let value_at = self.place();
        let (value, is_quoted) = match self.peek() {
            Some((Token::Word(word), _)) => (word.clone(), false),
            Some((Token::Quoted(text), _)) => (text.clone(), true),
            _ => return Err(Wrong::new(&value_at, "a value belongs here")),
        };
        self.next += 1;
        let name = path.join(".");
        let bad_operator =
            |what: &str| Err(Wrong::new(&operator_at, format!("{name} is {what} compare it")));
        let test = match (kind, operator) {
            (Kind::Number(_), _) if is_quoted => {
                let message = format!("{name} is a number: write it without quotes");
                return Err(Wrong::new(&value_at, message));
            }
            (Kind::Number(unit), operator) => {
                let Some(order) = order(operator) else {
                    return bad_operator("a number: == != < <= > >=");
                };
                let number = number(&value, unit, &name);
                Test::Number(order, number.map_err(|message| Wrong::new(&value_at, message))?)
            }
            (Kind::Text(_), "~") => Test::Like(WildMatch::new(&value)),
            (Kind::Text(words), "==" | "!=") => {
                if !words.is_empty() && !words.contains(&value) {
                    return Err(Wrong::new(&value_at, no_word(&name, &value, &words)));
                }
                Test::Text { is_equal: operator == "==", text: value }
            }
            (Kind::Text(_), _) => return bad_operator("text: == != ~"),
            (Kind::Flag, "==" | "!=") => match value.as_str() {
                "true" | "false" => {
                    Test::Flag { is_equal: operator == "==", flag: value == "true" }
                }
                _ => return Err(Wrong::new(&value_at, format!("{name} is true or false"))),
            },
            (Kind::Flag, _) => return bad_operator("true or false: == !="),
        };
        Ok(Comparison { path, test })
    }

    /// A field's path; members with other characters are in quotes.
    fn path(&mut self) -> Result<(Vec<String>, Range<usize>), Wrong> {
        let start = self.place();
        let Some((Token::Word(word), at)) = self.peek().cloned() else {
            return Err(Wrong::new(&start, "a field belongs here, such as process.comm"));
        };
        self.next += 1;
        let mut path: Vec<String> = word.split('.').map(str::to_owned).collect();
        let mut end = at.end;
        // `labels."a/b".c`: words and quotes without a space between them.
        loop {
            let is_open = path.last().is_some_and(String::is_empty);
            match self.peek().cloned() {
                Some((Token::Quoted(name), at)) if at.start == end && is_open => {
                    path.pop();
                    path.push(name);
                    end = at.end;
                }
                Some((Token::Word(word), at)) if at.start == end && word.starts_with('.') => {
                    path.extend(word.split('.').skip(1).map(str::to_owned));
                    end = at.end;
                }
                _ => break,
            }
            self.next += 1;
        }
        Ok((path, start.start..end))
    }
}

fn order(operator: &str) -> Option<Order> {
    Some(match operator {
        "==" => Order::Equal,
        "!=" => Order::NotEqual,
        "<" => Order::Less,
        "<=" => Order::LessOrEqual,
        ">" => Order::Greater,
        ">=" => Order::GreaterOrEqual,
        _ => return None,
    })
}

fn no_field(path: &[String], at: &Range<usize>, unknown: Unknown) -> Wrong {
    let name = path.join(".");
    match unknown {
        Unknown::Object(members) => {
            Wrong::new(at, format!("{name} has fields of its own: {}", members.join(", ")))
        }
        Unknown::Member(index, like) => {
            let before: usize = path[..index].iter().map(|name| name.len() + 1).sum();
            // Quotes and backslashes before it move the marks; they stay inside the path.
            let start = (at.start + before).min(at.end.saturating_sub(1));
            let start =
                if path[..index].iter().all(|name| !name.contains('.')) { start } else { at.start };
            let hint = match like.is_empty() {
                true => "docs/events.schema.json has all".to_owned(),
                false => format!("is it {}?", like.join(" or ")),
            };
            Wrong::new(&(start..at.end), format!("no event has the field {name}; {hint}"))
        }
    }
}

fn no_word(name: &str, value: &str, words: &[String]) -> String {
    match nearest_word(value, words) {
        Some(word) => format!("{name} is never {value}; is it {word}?"),
        None => format!("{name} is never {value}, but one of {}", words.join(", ")),
    }
}

const SIZES: [(&str, u128); 5] =
    [("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40)];
const TIMES: [(&str, u128); 7] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("min", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// A whole number of the field's unit: `1GiB`, `1.5s`, `-3`. Without a unit it is in the field's own.
fn number(text: &str, unit: Unit, name: &str) -> Result<i128, String> {
    let (units, example): (&[_], _) = match unit {
        Unit::None => (&[], "a number without a unit: 3"),
        Unit::Bytes => (&SIZES, "bytes: 512, 64KiB, 1.5GiB"),
        Unit::Nanoseconds => (&TIMES, "nanoseconds: 500, 20us, 1.5ms, 2s"),
    };
    let expected = || format!("'{text}' does not fit {name}, which is {example}");
    let (is_negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    let end = digits.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(digits.len());
    let (digits, suffix) = digits.split_at(end);
    let factor = match suffix {
        "" => 1,
        suffix => units.iter().find(|(unit, _)| *unit == suffix).ok_or_else(expected)?.1,
    };
    let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
    // Enough for any u64, and no product of them overflows.
    if whole.is_empty() || whole.len() > 20 || part.len() > 12 || part.contains('.') {
        return Err(expected());
    }
    let all: u128 = format!("{whole}{part}").parse().map_err(|_| expected())?;
    let scale = 10_u128.pow(part.len() as u32);
    if !(all * factor).is_multiple_of(scale) {
        return Err(format!(
            "'{text}' is no whole number of {}",
            example.split(':').next().unwrap_or("")
        ));
    }
    let number = i128::try_from(all * factor / scale).map_err(|_| expected())?;
    Ok(if is_negative { -number } else { number })
}
