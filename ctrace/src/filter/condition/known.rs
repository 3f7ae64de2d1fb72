//! The fields that there are, as the schema of events has them.

use std::sync::OnceLock;

use serde_json::Value;

/// What a field holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    Number(Unit),
    /// With the words that it may be, where the schema names them.
    Text(Vec<String>),
    Flag,
}

/// What a number counts, by the end of the field's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    None,
    Bytes,
    Nanoseconds,
}

/// Why a path is no field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unknown {
    /// The member at this place of the path is not there; fields with names like it.
    Member(usize, Vec<String>),
    /// It is an object; its members.
    Object(Vec<String>),
}

/// What the field at `path` holds.
pub fn kind(path: &[String]) -> Result<Kind, Unknown> {
    let mut node = schema();
    for (index, name) in path.iter().enumerate() {
        node = match (member(node, name), node.get("additionalProperties")) {
            (Some(found), _) => found,
            // Labels, counters: any name.
            (None, Some(any)) if any.is_object() => any,
            (None, _) => return Err(Unknown::Member(index, nearest(path))),
        };
    }
    let node = item(node);
    kind_of(node, path.last().map_or("", String::as_str)).ok_or_else(|| {
        let members = node.get("properties").and_then(Value::as_object);
        Unknown::Object(members.into_iter().flat_map(|members| members.keys().cloned()).collect())
    })
}

/// Made once: it is a thousand lines.
fn schema() -> &'static Value {
    static SCHEMA: OnceLock<Value> = OnceLock::new();
    SCHEMA.get_or_init(crate::event::schema)
}

fn member<'a>(node: &'a Value, name: &str) -> Option<&'a Value> {
    item(node).get("properties")?.get(name)
}

/// A list is asked as its elements are.
fn item(node: &Value) -> &Value {
    node.get("items").unwrap_or(node)
}

fn kind_of(node: &Value, name: &str) -> Option<Kind> {
    if let Some(words) = node.get("enum").and_then(Value::as_array) {
        let words = words.iter().filter_map(Value::as_str).map(str::to_owned);
        return Some(Kind::Text(words.collect()));
    }
    if node.get("const").is_some_and(Value::is_number) {
        return Some(Kind::Number(Unit::None));
    }
    let ty = node.get("type")?;
    match ty.as_str().or_else(|| ty.get(0)?.as_str())? {
        "integer" if name.ends_with("_bytes") || name == "bytes" => Some(Kind::Number(Unit::Bytes)),
        "integer" if name.ends_with("_ns") => Some(Kind::Number(Unit::Nanoseconds)),
        "integer" => Some(Kind::Number(Unit::None)),
        "string" => Some(Kind::Text(Vec::new())),
        "boolean" => Some(Kind::Flag),
        _ => None,
    }
}

/// All fields, with their whole paths.
fn fields(node: &Value, above: &str, found: &mut Vec<String>) {
    let members = item(node).get("properties").and_then(Value::as_object);
    for (name, node) in members.into_iter().flatten() {
        let path = if above.is_empty() { name.clone() } else { format!("{above}.{name}") };
        if kind_of(item(node), name).is_some() {
            found.push(path.clone());
        }
        fields(node, &path, found);
    }
}

/// At most three fields that may be meant: of the same last name, or spelled nearly so.
fn nearest(path: &[String]) -> Vec<String> {
    let wanted = path.join(".");
    let last = |path: &str| path.rsplit('.').next().unwrap_or_default().to_owned();
    let wanted_last = last(&wanted);
    let mut found = Vec::new();
    fields(schema(), "", &mut found);
    let score = |field: &String| {
        let whole = distance(&wanted, field);
        let of_last = distance(&wanted_last, &last(field));
        let is_elsewhere = field.split('.').next() != path.first().map(String::as_str);
        whole.min(of_last + 1) + usize::from(is_elsewhere)
    };
    let limit = (wanted_last.chars().count() / 3).clamp(1, 4) + 1;
    let mut scored: Vec<_> = found.into_iter().map(|field| (score(&field), field)).collect();
    scored.retain(|(score, _)| *score <= limit);
    scored.sort_by_key(|(score, field)| (*score, field.len()));
    let best = scored.first().map_or(0, |(score, _)| *score);
    scored.retain(|(score, _)| *score <= best + 1);
    scored.truncate(3);
    scored.into_iter().map(|(_, field)| field).collect()
}

/// The one of `words` that is spelled nearly so.
pub fn nearest_word<'a>(word: &str, words: &'a [String]) -> Option<&'a String> {
    let scored = words.iter().map(|known| (distance(word, known), known));
    scored.filter(|(score, _)| *score <= 3).min_by_key(|(score, _)| *score).map(|(_, word)| word)
}

/// Letters to insert, remove or replace (Levenshtein); of the first 64 letters.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (index, letter) in one.chars().take(64).enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], index + 1);
        for (place, known) in other.iter().enumerate() {
            let replaced = diagonal + usize::from(letter != *known);
            diagonal = row[place + 1];
            row[place + 1] = replaced.min(diagonal + 1).min(row[place] + 1);
        }
    }
    row[other.len()]
}
