//! One table per event drives JSON, text, the schema and the documentation.

use std::borrow::Cow;

use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};

/// What a field's value means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// Free text.
    Text,
    /// A whole number without a unit: an id, a pid, a count.
    Number,
    /// A whole number that may be below zero.
    Signed,
    /// Bytes.
    Bytes,
    /// A table of its own.
    Object,
    /// A list of [`Type::Object`]s.
    Objects,
    /// A list of [`Type::Text`]s.
    Texts,
    /// A list of [`Type::Number`]s.
    Numbers,
    /// Yes or no.
    Flag,
}

impl Type {
    /// The type in JSON Schema.
    pub const fn json(self) -> &'static str {
        match self {
            Type::Text => "string",
            Type::Number | Type::Signed | Type::Bytes => "integer",
            Type::Object => "object",
            Type::Objects | Type::Texts | Type::Numbers => "array",
            Type::Flag => "boolean",
        }
    }
}

/// A value on its way to a sink.
#[derive(Clone, Debug, PartialEq)]
pub enum Value<'a> {
    /// Unknown, or not there.
    Null,
    Number(u64),
    Signed(i64),
    Flag(bool),
    Text(Cow<'a, str>),
    Object(Vec<(Cow<'a, str>, Value<'a>)>),
    List(Vec<Value<'a>>),
}

impl Serialize for Value<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Value::Null => serializer.serialize_unit(),
            Value::Number(number) => serializer.serialize_u64(*number),
            Value::Signed(number) => serializer.serialize_i64(*number),
            Value::Flag(flag) => serializer.serialize_bool(*flag),
            Value::Text(text) => serializer.serialize_str(text),
            Value::Object(members) => {
                let mut map = serializer.serialize_map(Some(members.len()))?;
                for (name, value) in members {
                    map.serialize_entry(name, value)?;
                }
                map.end()
            }
            Value::List(values) => {
                let mut list = serializer.serialize_seq(Some(values.len()))?;
                for value in values {
                    list.serialize_element(value)?;
                }
                list.end()
            }
        }
    }
}

impl From<u64> for Value<'_> {
    fn from(number: u64) -> Self {
        Value::Number(number)
    }
}

impl From<u32> for Value<'_> {
    fn from(number: u32) -> Self {
        Value::Number(number.into())
    }
}

impl From<i32> for Value<'_> {
    fn from(number: i32) -> Self {
        Value::Signed(number.into())
    }
}

impl From<bool> for Value<'_> {
    fn from(flag: bool) -> Self {
        Value::Flag(flag)
    }
}

impl From<String> for Value<'_> {
    fn from(text: String) -> Self {
        Value::Text(text.into())
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Value::Text(text.into())
    }
}

impl<'a> From<&'a String> for Value<'a> {
    fn from(text: &'a String) -> Self {
        Value::Text(text.into())
    }
}

impl<'a, T: Into<Value<'a>>> From<Option<T>> for Value<'a> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Value::Null, Into::into)
    }
}

/// One field of an event.
pub struct Field<T: 'static> {
    /// The JSON key, its unit at the end.
    pub name: &'static str,
    pub ty: Type,
    /// What it says, for the schema and the documentation.
    pub doc: &'static str,
    pub get: for<'a> fn(&'a T) -> Value<'a>,
}

/// A whole object by its table.
pub fn object<'a, T>(fields: &[Field<T>], of: &'a T) -> Value<'a> {
    Value::Object(fields.iter().map(|field| (field.name.into(), (field.get)(of))).collect())
}

/// A table's part of the JSON Schema; a [`Type::Object`] is described by `parts`.
pub fn schema<T>(
    fields: &[Field<T>],
    parts: &[(&str, serde_json::Value)],
) -> serde_json::Map<String, serde_json::Value> {
    fields
        .iter()
        .map(|field| {
            let mut property = parts
                .iter()
                .find(|(name, _)| *name == field.name)
                .map(|(_, part)| part.clone())
                .unwrap_or_else(|| serde_json::json!({}));
            property["type"] = serde_json::json!([field.ty.json(), "null"]);
            match field.ty {
                Type::Number | Type::Bytes => property["minimum"] = 0.into(),
                Type::Texts => property["items"] = serde_json::json!({ "type": "string" }),
                _ => {}
            }
            property["description"] = field.doc.into();
            (field.name.to_owned(), property)
        })
        .collect()
}
