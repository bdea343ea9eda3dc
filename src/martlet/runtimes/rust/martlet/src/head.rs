//! Request line and headers (RFC 9112).

use crate::request::Headers;

/// Bytes of a request line and headers together; the gateway's own limit is lower.
pub const MAX_HEAD: usize = 64 * 1024;

/// The peer sent what is not acceptable HTTP: a status, and what is wrong. The connection cannot go on.
#[derive(Debug)]
pub struct BadRequest(pub u16, pub String);

pub enum Length {
    Known(usize),
    Chunked,
}

pub struct Head {
    pub method: String,
    pub target: String,
    pub headers: Headers,
    pub length: Length,
    pub keep_alive: bool,
    /// Whether the peer speaks HTTP/1.1, and so knows chunks.
    pub chunks: bool,
}

impl Head {
    /// Parses what stands before the empty line.
    pub fn parse(data: &[u8]) -> Result<Head, BadRequest> {
        let text = std::str::from_utf8(data).map(str::to_owned);
        let text = text.unwrap_or_else(|_| data.iter().map(|&byte| byte as char).collect());
        let mut lines = text.split("\r\n");
        let malformed = || BadRequest(400, "this is not an HTTP/1.1 request".into());
        let mut words = lines.next().unwrap_or("").split(' ');
        let (method, target, version) = match (words.next(), words.next(), words.next(), words.next()) {
            (Some(method), Some(target), Some(version), None) => (method, target, version),
            _ => return Err(malformed()),
        };
        let chunks = version == "HTTP/1.1";
        let well_formed = (chunks || version == "HTTP/1.0")
            && is_token(method)
            && (target.starts_with('/') || target == "*")
            && target.bytes().all(|byte| byte > b' ' && byte != 0x7f);
        if !well_formed {
            return Err(malformed());
        }
        let mut fields = Vec::new();
        for line in lines {
            let (name, value) = line.split_once(':').ok_or_else(malformed)?;
            if !is_token(name) || !is_value(value) {
                return Err(malformed());
            }
            fields.push((name.to_ascii_lowercase(), value.trim_matches([' ', '\t']).to_owned()));
        }
        let headers = Headers(fields);
        let length = body_length(&headers)?;
        let close = headers.get("connection").is_some_and(|value| value.to_ascii_lowercase().contains("close"));
        Ok(Head {
            method: method.to_owned(),
            target: target.to_owned(),
            headers,
            length,
            keep_alive: chunks && !close,
            chunks,
        })
    }
}

fn body_length(headers: &Headers) -> Result<Length, BadRequest> {
    let mut lengths = headers.all("content-length");
    let mut codings = headers.all("transfer-encoding");
    let ambiguous = || BadRequest(400, "a body must either have one content-length or be chunked".into());
    match (lengths.next(), codings.next()) {
        (None, None) => Ok(Length::Known(0)),
        (Some(length), None) if lengths.next().is_none() => {
            let digits = !length.is_empty() && length.len() < 16 && length.bytes().all(|byte| byte.is_ascii_digit());
            let number = digits.then(|| length.parse().ok()).flatten();
            number.map(Length::Known).ok_or_else(|| BadRequest(400, "content-length must be a number of bytes".into()))
        }
        (None, Some(coding)) if codings.next().is_none() && coding.eq_ignore_ascii_case("chunked") => Ok(Length::Chunked),
        _ => Err(ambiguous()),
    }
}

/// Whether text may be the name of a header, or a method.
pub fn is_token(text: &str) -> bool {
    let special = |byte| b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || special(byte))
}

/// Whether text may be the value of a header: it must not end the line.
pub fn is_value(text: &str) -> bool {
    !text.bytes().any(|byte| matches!(byte, b'\r' | b'\n' | 0))
}
