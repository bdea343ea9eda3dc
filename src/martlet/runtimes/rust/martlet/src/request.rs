//! The request as a handler sees it.

use std::borrow::Cow;
use std::time::{Duration, Instant};

use crate::head::Head;
use crate::json::{BadJson, Json};

/// Headers in the order sent: names in lower case, looked up in any case.
#[derive(Clone, Debug, Default)]
pub struct Headers(pub Vec<(String, String)>);

impl Headers {
    /// Returns a header's first value.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// Returns every value of a header.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// Returns all names and values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

/// One request, its body read.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    /// The path below the function's root, decoded; begins with a slash.
    pub path: String,
    /// What follows the question mark, as sent.
    pub query_string: String,
    pub headers: Headers,
    pub body: Vec<u8>,
    arrived: Instant,
}

impl Request {
    pub(crate) fn new(head: Head, body: Vec<u8>) -> Request {
        let (path, query) = head.target.split_once('?').unwrap_or((&head.target, ""));
        Request {
            path: decoded(path, false),
            query_string: query.to_owned(),
            method: head.method,
            headers: head.headers,
            body,
            arrived: Instant::now(),
        }
    }

    /// Returns the body as text; bytes that are no UTF-8 become U+FFFD.
    pub fn text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.body)
    }

    /// Returns the body read as JSON; an empty body is an empty object. A handler that lets the error pass answers 400.
    pub fn json(&self) -> Result<Json, BadJson> {
        if self.body.is_empty() {
            return Ok(Json::Object(Vec::new()));
        }
        Json::parse(&self.text())
    }

    /// Returns the names and values of the query, in the order sent.
    pub fn query_params(&self) -> Vec<(String, String)> {
        let pairs = self.query_string.split('&').filter(|pair| !pair.is_empty());
        let split = |pair: &str| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decoded(name, true), decoded(value, true))
        };
        pairs.map(split).collect()
    }

    /// Returns the first value of a name of the query.
    pub fn query(&self, name: &str) -> Option<String> {
        self.query_params().into_iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }

    /// Returns the id that the response, the log and the history have.
    pub fn id(&self) -> &str {
        self.headers.get("x-request-id").unwrap_or("")
    }

    /// Returns how long the request may still take.
    pub fn remaining(&self) -> Option<Duration> {
        let deadline = self.headers.get("x-faas-deadline")?.parse().ok()?;
        Some(Duration::from_millis(deadline).saturating_sub(self.arrived.elapsed()))
    }
}

/// Undoes percent-encoding; where `plus`, a plus sign is a space.
fn decoded(text: &str, plus: bool) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        let escaped = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let escaped = escaped.filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
        match (byte, escaped.and_then(|digits| u8::from_str_radix(digits, 16).ok())) {
            (b'%', Some(value)) => {
                bytes.push(value);
                rest = &after[2..];
            }
            (b'+', _) if plus => bytes.push(b' '),
            _ => bytes.push(byte),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
