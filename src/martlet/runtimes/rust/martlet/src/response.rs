//! What a handler may return, and what becomes of it.

use std::error::Error;
use std::fmt::Display;

use crate::failure::Failure;
use crate::json::Json;

/// A body that is whole, or comes in pieces that are sent as soon as they are there.
pub enum Body {
    Whole(Vec<u8>),
    Stream(Box<dyn Iterator<Item = Vec<u8>>>),
}

/// A response with a status and headers of its own.
///
/// ```ignore
/// Response::text("teapot").status(418).header("x-colour", "blue")
/// ```
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Body,
}

impl Response {
    fn new(status: u16, content_type: &str, body: Body) -> Response {
        let headers = if content_type.is_empty() { vec![] } else { vec![("content-type".into(), content_type.into())] };
        Response { status, headers, body }
    }

    /// Answers with text.
    pub fn text(text: impl Into<String>) -> Response {
        Response::new(200, "text/plain; charset=utf-8", Body::Whole(text.into().into_bytes()))
    }

    /// Answers with bytes.
    pub fn bytes(bytes: impl Into<Vec<u8>>) -> Response {
        Response::new(200, "application/octet-stream", Body::Whole(bytes.into()))
    }

    /// Answers with JSON: a [`Json`], a `serde_json::Value`, or a text that is JSON already.
    pub fn json(document: impl Display) -> Response {
        Response::new(200, "application/json", Body::Whole(document.to_string().into_bytes()))
    }

    /// Answers without a body.
    pub fn empty() -> Response {
        Response::new(204, "", Body::Whole(Vec::new()))
    }

    /// Answers with pieces, each sent as soon as the iterator has it.
    pub fn stream<I>(pieces: I) -> Response
    where
        I: IntoIterator<Item: Into<Vec<u8>>>,
        I::IntoIter: 'static,
        I::Item: 'static,
    {
        let pieces = pieces.into_iter().map(Into::into);
        Response::new(200, "text/plain; charset=utf-8", Body::Stream(Box::new(pieces)))
    }

    /// Sets the status.
    pub fn status(mut self, status: u16) -> Response {
        self.status = status;
        self
    }

    /// Adds a header; a content-type replaces the one there is.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Response {
        let name = name.into();
        if name.eq_ignore_ascii_case("content-type") {
            self.headers.retain(|(other, _)| !other.eq_ignore_ascii_case("content-type"));
        }
        self.headers.push((name, value.into()));
        self
    }
}

/// What a handler may return.
pub trait IntoResponse {
    fn into_response(self) -> Result<Response, Failure>;
}

impl IntoResponse for Response {
    fn into_response(self) -> Result<Response, Failure> {
        Ok(self)
    }
}

impl IntoResponse for Json {
    fn into_response(self) -> Result<Response, Failure> {
        Ok(Response::json(self))
    }
}

impl IntoResponse for String {
    fn into_response(self) -> Result<Response, Failure> {
        Ok(Response::text(self))
    }
}

impl IntoResponse for &str {
    fn into_response(self) -> Result<Response, Failure> {
        Ok(Response::text(self))
    }
}

impl IntoResponse for Vec<u8> {
    fn into_response(self) -> Result<Response, Failure> {
        Ok(Response::bytes(self))
    }
}

impl IntoResponse for () {
    fn into_response(self) -> Result<Response, Failure> {
        Ok(Response::empty())
    }
}

/// A body with a status.
impl<T: IntoResponse> IntoResponse for (u16, T) {
    fn into_response(self) -> Result<Response, Failure> {
        Ok(self.1.into_response()?.status(self.0))
    }
}

impl<T: IntoResponse, E: Into<Box<dyn Error + Send + Sync>>> IntoResponse for Result<T, E> {
    fn into_response(self) -> Result<Response, Failure> {
        self.map_err(Failure::of)?.into_response()
    }
}
