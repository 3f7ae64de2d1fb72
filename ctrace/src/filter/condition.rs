//! `--where`: comparisons of an event's fields, as JSON has them. Pure.
//!
//! ```text
//! oom.limit_bytes > 1GiB
//! type == exit && (exit.code != 0 || exit.signal == SIGKILL)
//! exec.args ~ "-Xmx*"
//! container.labels."app.kubernetes.io/name" == web
//! ```
//!
//! A comparison of what is null or not there is false, also with `!=`; so is one of a field that another
//! type of event has. Of a list one element that fits is enough.

mod known;
mod parse;
#[cfg(test)]
mod tests;

use wildmatch::WildMatch;

use crate::event::{Event, field::Value};

/// A checked expression.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition(Node);

#[derive(Clone, Debug, PartialEq)]
enum Node {
    Any(Vec<Node>),
    All(Vec<Node>),
    Not(Box<Node>),
    Is(Comparison),
}

/// A field against a value of its type.
#[derive(Clone, Debug, PartialEq)]
struct Comparison {
    /// The members that lead to it; at least one.
    path: Vec<String>,
    test: Test,
}

#[derive(Clone, Debug, PartialEq)]
enum Test {
    Number(Order, i128),
    Text { is_equal: bool, text: String },
    Flag { is_equal: bool, flag: bool },
    Like(WildMatch),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Condition {
    /// Reads an expression and checks its fields and values against the schema of events.
    ///
    /// # Errors
    /// Several lines: what is wrong, the expression, and marks below the place.
    pub fn parse(text: &str) -> Result<Self, String> {
        parse::parse(text).map(Self).map_err(|error| error.shown_in(text))
    }

    /// Whether it holds for an event.
    pub fn holds(&self, event: &Event) -> bool {
        self.0.holds(event)
    }
}

impl Node {
    fn holds(&self, event: &Event) -> bool {
        match self {
            Node::Any(nodes) => nodes.iter().any(|node| node.holds(event)),
            Node::All(nodes) => nodes.iter().all(|node| node.holds(event)),
            Node::Not(node) => !node.holds(event),
            Node::Is(Comparison { path, test }) => {
                let Some((first, rest)) = path.split_first() else { return false };
                test.holds_below(&event.member(first), rest)
            }
        }
    }
}

impl Test {
    fn holds_below(&self, value: &Value, path: &[String]) -> bool {
        match (value, path.split_first()) {
            (Value::List(values), _) => values.iter().any(|value| self.holds_below(value, path)),
            (Value::Object(members), Some((first, rest))) => members
                .iter()
                .any(|(name, value)| *name == first.as_str() && self.holds_below(value, rest)),
            (value, None) => self.holds_of(value),
            (_, Some(_)) => false,
        }
    }

    fn holds_of(&self, value: &Value) -> bool {
        match (self, value) {
            (Test::Number(order, wanted), Value::Number(number)) => {
                order.holds((*number).into(), *wanted)
            }
            (Test::Number(order, wanted), Value::Signed(number)) => {
                order.holds((*number).into(), *wanted)
            }
            (Test::Text { is_equal, text: wanted }, Value::Text(text)) => {
                (*text == wanted.as_str()) == *is_equal
            }
            (Test::Flag { is_equal, flag: wanted }, Value::Flag(flag)) => {
                (flag == wanted) == *is_equal
            }
            (Test::Like(glob), Value::Text(text)) => glob.matches(text),
            _ => false,
        }
    }
}

impl Order {
    fn holds(self, number: i128, wanted: i128) -> bool {
        match self {
            Order::Equal => number == wanted,
            Order::NotEqual => number != wanted,
            Order::Less => number < wanted,
            Order::LessOrEqual => number <= wanted,
            Order::Greater => number > wanted,
            Order::GreaterOrEqual => number >= wanted,
        }
    }
}
