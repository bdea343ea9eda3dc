//! What people are told when a handler fails.

use std::any::{type_name, Any};
use std::error::Error;

use crate::json::{json, BadJson};
use crate::response::Response;
use crate::logs;

/// Longest message that travels in an answer; the log has all of it.
const MESSAGE_BYTES: usize = 4096;

/// An error in words. Panics are logged by the panic hook, which knows where they happened.
pub struct Failure {
    pub kind: String,
    pub message: String,
    status: u16,
}

impl Failure {
    /// Describes an error that a handler returned.
    pub fn of<E: Into<Box<dyn Error + Send + Sync>>>(error: E) -> Failure {
        let kind = kind_of(type_name::<E>());
        let error = error.into();
        let status = if error.is::<BadJson>() { 400 } else { 500 };
        let failure = Failure { kind, message: error.to_string(), status };
        if status == 500 {
            logs::emit("error", &format!("{}: {}", failure.kind, failure.message));
        }
        failure
    }

    /// Describes something that a response cannot be.
    pub fn new(kind: &str, message: String) -> Failure {
        logs::emit("error", &format!("{kind}: {message}"));
        Failure { kind: kind.into(), message, status: 500 }
    }

    pub(crate) fn panic(payload: Box<dyn Any + Send>) -> Failure {
        Failure { kind: "panic".into(), message: logs::panic_message(&*payload).into(), status: 500 }
    }

    /// Returns the response that tells.
    pub fn response(self) -> Response {
        let mut end = self.message.len().min(MESSAGE_BYTES);
        while !self.message.is_char_boundary(end) {
            end -= 1;
        }
        let message = &self.message[..end];
        if self.status == 400 {
            let problem = json!({
                "type": "about:blank", "status": 400, "code": "bad_json",
                "title": "The request body is not JSON", "detail": message,
                "request_id": logs::current_request(),
            });
            return Response::json(problem).status(400).header("content-type", "application/problem+json");
        }
        let document = json!({"type": self.kind.as_str(), "message": message});
        Response::json(document).status(500).header("x-martlet-error", self.kind)
    }
}

/// `core::num::ParseIntError` is called `ParseIntError`; a box, a string and such just `Error`.
fn kind_of(name: &str) -> String {
    let plain = name.chars().all(|letter| letter.is_alphanumeric() || letter == ':' || letter == '_');
    match name.rsplit("::").next() {
        Some(last) if plain && !matches!(last, "String" | "str") => last.into(),
        _ => "Error".into(),
    }
}
