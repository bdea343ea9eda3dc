//! What a function is given, and what it returns.

use std::collections::HashMap;

use crate::json::ToJson;

/// The request, what makes responses, and logging.
#[derive(Clone)]
pub struct Context {
    pub req: ContextRequest,
    pub res: ContextResponse,
    silent: bool,
    request_id: String,
}

impl Context {
    pub(crate) fn new(req: ContextRequest, silent: bool, request_id: String) -> Context {
        Context { req, res: ContextResponse, silent, request_id }
    }

    /// Writes a line to the log.
    pub fn log(&self, message: impl LogMessage) {
        self.write("info", &message.to_log_string());
    }

    /// Writes words to the log, as one line.
    pub fn log_multiple(&self, messages: Vec<String>) {
        self.write("info", &messages.join(" "));
    }

    /// Writes a line to the log, as an error.
    pub fn error(&self, message: impl LogMessage) {
        self.write("error", &message.to_log_string());
    }

    /// Writes words to the log, as one line and an error.
    pub fn error_multiple(&self, messages: Vec<String>) {
        self.write("error", &messages.join(" "));
    }

    fn write(&self, level: &str, text: &str) {
        if !self.silent {
            martlet::logs::emit_for(&self.request_id, level, text);
        }
    }
}

/// What can be logged.
pub trait LogMessage {
    fn to_log_string(&self) -> String;
}

macro_rules! log_message {
    ($($type:ty),*) => {
        $(impl LogMessage for $type { fn to_log_string(&self) -> String { self.to_string() } })*
    };
}
log_message!(&str, String, &String, i32, i64, u16, u32, u64, usize, f32, f64, bool);

impl LogMessage for Vec<&str> {
    fn to_log_string(&self) -> String {
        format!("{self:?}")
    }
}

impl LogMessage for Vec<String> {
    fn to_log_string(&self) -> String {
        format!("{self:?}")
    }
}

/// The request. Names of headers are in lower case.
#[derive(Clone, Debug, Default)]
pub struct ContextRequest {
    pub headers: HashMap<String, String>,
    pub method: String,
    pub url: String,
    pub scheme: String,
    pub host: String,
    pub port: u16,
    pub path: String,
    pub query_string: String,
    pub query: HashMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl ContextRequest {
    /// Returns the body.
    pub fn body_binary(&self) -> Vec<u8> {
        self.body.clone()
    }

    /// Returns the body as text.
    pub fn body_text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[deprecated(note = "use body_binary")]
    pub fn body_raw(&self) -> Vec<u8> {
        self.body_binary()
    }
}

/// What a function returns.
#[derive(Clone, Debug)]
pub struct Response {
    pub status_code: u16,
    pub body: Vec<u8>,
    pub headers: HashMap<String, String>,
}

impl Response {
    pub fn new() -> Response {
        Response { status_code: 200, body: Vec::new(), headers: HashMap::new() }
    }
}

impl Default for Response {
    fn default() -> Response {
        Response::new()
    }
}

type Headers = Option<HashMap<String, String>>;

/// Makes responses.
#[derive(Clone)]
pub struct ContextResponse;

impl ContextResponse {
    /// Answers with text.
    pub fn text(&self, text: impl Into<String>, status_code: Option<u16>, headers: Headers) -> Response {
        made("text/plain", text.into().into_bytes(), status_code, headers)
    }

    /// Answers with a value as JSON.
    pub fn json<T: ToJson>(&self, data: T, status_code: Option<u16>, headers: Headers) -> Response {
        made("application/json", data.to_json().into_bytes(), status_code, headers)
    }

    /// Answers with bytes.
    pub fn binary(&self, data: Vec<u8>, status_code: Option<u16>, headers: Headers) -> Response {
        made("application/octet-stream", data, status_code, headers)
    }

    /// Answers without a body.
    pub fn empty(&self) -> Response {
        Response { status_code: 204, ..Response::new() }
    }

    /// Answers that the client is to go to another address.
    pub fn redirect(&self, url: impl Into<String>, status_code: Option<u16>, headers: Headers) -> Response {
        let mut headers = headers.unwrap_or_default();
        headers.insert("location".into(), url.into());
        Response { status_code: status_code.unwrap_or(301), body: Vec::new(), headers }
    }

    #[deprecated(note = "use text")]
    pub fn send(&self, data: impl Into<String>) -> Response {
        self.text(data, None, None)
    }
}

fn made(content_type: &str, body: Vec<u8>, status_code: Option<u16>, headers: Headers) -> Response {
    let mut headers = headers.unwrap_or_default();
    headers.entry("content-type".into()).or_insert_with(|| content_type.into());
    Response { status_code: status_code.unwrap_or(200), body, headers }
}
