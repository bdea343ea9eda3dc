//! JSON, as much of it as answering and asking takes. With serde in a function's own Cargo.toml none of this is needed.

use std::error::Error;
use std::fmt::{self, Display, Write};

/// A JSON value. It is written by its `Display`.
#[derive(Clone, Debug, PartialEq)]
pub enum Json {
    Null,
    Bool(bool),
    Integer(i64),
    Number(f64),
    String(String),
    Array(Vec<Json>),
    Object(Vec<(String, Json)>),
}

/// The text is not JSON.
#[derive(Debug)]
pub struct BadJson(String);

impl Display for BadJson {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "the request body is not JSON: {}", self.0)
    }
}

impl Error for BadJson {}

/// Makes a [`Json`] of a literal whose values may be expressions: `json!({"name": name, "tags": ["a", "b"]})`.
#[macro_export]
macro_rules! json {
    (null) => { $crate::Json::Null };
    ([ $($rest:tt)* ]) => {{
        #[allow(unused_mut)]
        let mut items: Vec<$crate::Json> = Default::default();
        $crate::json!(@items items $($rest)*);
        $crate::Json::Array(items)
    }};
    ({ $($rest:tt)* }) => {{
        #[allow(unused_mut)]
        let mut members: Vec<(String, $crate::Json)> = Default::default();
        $crate::json!(@members members $($rest)*);
        $crate::Json::Object(members)
    }};
    (@items $to:ident) => {};
    (@items $to:ident null $(, $($rest:tt)*)?) => { $to.push($crate::Json::Null); $crate::json!(@items $to $($($rest)*)?); };
    (@items $to:ident [ $($in:tt)* ] $(, $($rest:tt)*)?) => { $to.push($crate::json!([ $($in)* ])); $crate::json!(@items $to $($($rest)*)?); };
    (@items $to:ident { $($in:tt)* } $(, $($rest:tt)*)?) => { $to.push($crate::json!({ $($in)* })); $crate::json!(@items $to $($($rest)*)?); };
    (@items $to:ident $value:expr $(, $($rest:tt)*)?) => { $to.push($crate::Json::from($value)); $crate::json!(@items $to $($($rest)*)?); };
    (@members $to:ident) => {};
    (@members $to:ident $key:tt : null $(, $($rest:tt)*)?) => { $to.push(($key.into(), $crate::Json::Null)); $crate::json!(@members $to $($($rest)*)?); };
    (@members $to:ident $key:tt : [ $($in:tt)* ] $(, $($rest:tt)*)?) => { $to.push(($key.into(), $crate::json!([ $($in)* ]))); $crate::json!(@members $to $($($rest)*)?); };
    (@members $to:ident $key:tt : { $($in:tt)* } $(, $($rest:tt)*)?) => { $to.push(($key.into(), $crate::json!({ $($in)* }))); $crate::json!(@members $to $($($rest)*)?); };
    (@members $to:ident $key:tt : $value:expr $(, $($rest:tt)*)?) => { $to.push(($key.into(), $crate::Json::from($value))); $crate::json!(@members $to $($($rest)*)?); };
    ($value:expr) => { $crate::Json::from($value) };
}
pub use json;

macro_rules! from {
    ($($type:ty => $value:ident $made:expr),* $(,)?) => {
        $(impl From<$type> for Json { fn from($value: $type) -> Json { $made } })*
    };
}

from! {
    bool => value Json::Bool(value),
    i32 => value Json::Integer(value.into()),
    i64 => value Json::Integer(value),
    u8 => value Json::Integer(value.into()),
    u16 => value Json::Integer(value.into()),
    u32 => value Json::Integer(value.into()),
    u64 => value i64::try_from(value).map_or(Json::Number(value as f64), Json::Integer),
    u128 => value i64::try_from(value).map_or(Json::Number(value as f64), Json::Integer),
    usize => value Json::from(value as u64),
    f32 => value Json::Number(value.into()),
    f64 => value Json::Number(value),
    String => value Json::String(value),
    &String => value Json::String(value.clone()),
    &str => value Json::String(value.into()),
    std::borrow::Cow<'_, str> => value Json::String(value.into()),
}

impl<T: Into<Json>> From<Option<T>> for Json {
    fn from(value: Option<T>) -> Json {
        value.map_or(Json::Null, Into::into)
    }
}

impl<T: Into<Json>> From<Vec<T>> for Json {
    fn from(values: Vec<T>) -> Json {
        Json::Array(values.into_iter().map(Into::into).collect())
    }
}

impl<K: Into<String>, V: Into<Json>> FromIterator<(K, V)> for Json {
    /// Collects names and values into an object.
    fn from_iter<I: IntoIterator<Item = (K, V)>>(members: I) -> Json {
        Json::Object(members.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}

impl Json {
    /// Returns a member of an object.
    pub fn get(&self, name: &str) -> Option<&Json> {
        match self {
            Json::Object(members) => members.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value),
            _ => None,
        }
    }

    /// Returns the text of a string.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Json::String(text) => Some(text),
            _ => None,
        }
    }

    /// Returns a number.
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Json::Number(number) => Some(*number),
            Json::Integer(number) => Some(*number as f64),
            _ => None,
        }
    }

    /// Returns the items of an array.
    pub fn as_array(&self) -> Option<&[Json]> {
        match self {
            Json::Array(items) => Some(items),
            _ => None,
        }
    }

    /// Reads a text.
    pub fn parse(text: &str) -> Result<Json, BadJson> {
        let mut parser = Parser { text, at: 0 };
        let value = parser.value(0)?;
        parser.space();
        if parser.at < text.len() {
            return Err(parser.bad("something follows the value"));
        }
        Ok(value)
    }
}

impl Display for Json {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Json::Null => to.write_str("null"),
            Json::Bool(value) => write!(to, "{value}"),
            Json::Integer(value) => write!(to, "{value}"),
            Json::Number(value) if value.is_finite() => write!(to, "{value}"),
            Json::Number(_) => to.write_str("null"),
            Json::String(text) => to.write_str(&quote(text)),
            Json::Array(items) => {
                to.write_char('[')?;
                for (index, item) in items.iter().enumerate() {
                    write!(to, "{}{item}", if index > 0 { "," } else { "" })?;
                }
                to.write_char(']')
            }
            Json::Object(members) => {
                to.write_char('{')?;
                for (index, (name, value)) in members.iter().enumerate() {
                    write!(to, "{}{}:{value}", if index > 0 { "," } else { "" }, quote(name))?;
                }
                to.write_char('}')
            }
        }
    }
}

/// Returns text as a JSON string.
pub fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for letter in text.chars() {
        match letter {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            control if control < ' ' => {
                let _ = write!(quoted, "\\u{:04x}", control as u32);
            }
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}

const MAX_DEPTH: usize = 128;

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl Parser<'_> {
    fn bad(&self, message: &str) -> BadJson {
        BadJson(format!("{message} at byte {}", self.at))
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn skip(&mut self, word: &str) -> bool {
        let there = self.text[self.at..].starts_with(word);
        if there {
            self.at += word.len();
        }
        there
    }

    fn value(&mut self, depth: usize) -> Result<Json, BadJson> {
        if depth > MAX_DEPTH {
            return Err(self.bad("too many brackets in each other"));
        }
        self.space();
        match self.peek() {
            Some(b'{') => self.object(depth),
            Some(b'[') => self.array(depth),
            Some(b'"') => self.string().map(Json::String),
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ if self.skip("null") => Ok(Json::Null),
            _ if self.skip("true") => Ok(Json::Bool(true)),
            _ if self.skip("false") => Ok(Json::Bool(false)),
            _ => Err(self.bad("there is no value")),
        }
    }

    fn array(&mut self, depth: usize) -> Result<Json, BadJson> {
        let mut items = Default::default();
        self.at += 1;
        self.space();
        if self.skip("]") {
            return Ok(Json::Array(items));
        }
        loop {
            items.push(self.value(depth + 1)?);
            self.space();
            if self.skip("]") {
                return Ok(Json::Array(items));
            } else if !self.skip(",") {
                return Err(self.bad("an array lacks a comma"));
            }
        }
    }

    fn object(&mut self, depth: usize) -> Result<Json, BadJson> {
        let mut members = Default::default();
        self.at += 1;
        self.space();
        if self.skip("}") {
            return Ok(Json::Object(members));
        }
        loop {
            self.space();
            if self.peek() != Some(b'"') {
                return Err(self.bad("an object lacks a name"));
            }
            let name = self.string()?;
            self.space();
            if !self.skip(":") {
                return Err(self.bad("an object lacks a colon"));
            }
            members.push((name, self.value(depth + 1)?));
            self.space();
            if self.skip("}") {
                return Ok(Json::Object(members));
            } else if !self.skip(",") {
                return Err(self.bad("an object lacks a comma"));
            }
        }
    }

    fn number(&mut self) -> Result<Json, BadJson> {
        let start = self.at;
        while matches!(self.peek(), Some(b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9')) {
            self.at += 1;
        }
        let text = &self.text[start..self.at];
        let digits = text.strip_prefix('-').unwrap_or(text);
        let leading_zero = digits.len() > 1 && digits.starts_with('0') && digits.as_bytes()[1].is_ascii_digit();
        let loose = digits.starts_with('.') || digits.ends_with('.') || digits.contains(".e") || digits.contains(".E");
        if leading_zero || loose {
            return Err(self.bad("a number is malformed"));
        }
        if let Ok(integer) = text.parse() {
            return Ok(Json::Integer(integer));
        }
        text.parse().map(Json::Number).map_err(|_| self.bad("a number is malformed"))
    }

    fn string(&mut self) -> Result<String, BadJson> {
        let mut text = String::new();
        self.at += 1;
        loop {
            let rest = &self.text[self.at..];
            let end = rest.find(|letter| matches!(letter, '"' | '\\') || letter < ' ');
            let end = end.ok_or_else(|| self.bad("a string does not end"))?;
            text.push_str(&rest[..end]);
            self.at += end + 1;
            match rest.as_bytes()[end] {
                b'"' => return Ok(text),
                b'\\' => text.push(self.escape()?),
                _ => return Err(self.bad("a string has a control character")),
            }
        }
    }

    fn escape(&mut self) -> Result<char, BadJson> {
        let escaped = self.peek();
        self.at += 1;
        Ok(match escaped {
            Some(same @ (b'"' | b'\\' | b'/')) => same as char,
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => return self.unicode(),
            _ => return Err(self.bad("a string has an unknown escape")),
        })
    }

    fn unicode(&mut self) -> Result<char, BadJson> {
        let first = self.unit()?;
        if !(0xd800..0xdc00).contains(&first) {
            return Ok(char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER));
        }
        let before = self.at;
        if self.skip("\\u") {
            let second = self.unit()?;
            if (0xdc00..0xe000).contains(&second) {
                let point = 0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00);
                return Ok(char::from_u32(point).unwrap_or(char::REPLACEMENT_CHARACTER));
            }
            self.at = before;
        }
        Ok(char::REPLACEMENT_CHARACTER)
    }

    fn unit(&mut self) -> Result<u32, BadJson> {
        let digits = self.text.get(self.at..self.at + 4).filter(|text| text.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let unit = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok());
        let unit = unit.ok_or_else(|| self.bad("a string has a malformed escape"))?;
        self.at += 4;
        Ok(unit)
    }
}
