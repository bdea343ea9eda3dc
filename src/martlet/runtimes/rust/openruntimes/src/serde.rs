//! JSON with serde, which the function uses as well.

use serde::de::DeserializeOwned;
use serde::Serialize;
use serde_json::Value;

use crate::context::{ContextRequest, LogMessage};

/// What can be answered as JSON.
pub trait ToJson {
    fn to_json(&self) -> String;
}

impl<T: Serialize + ?Sized> ToJson for T {
    fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_else(|_| "{}".into())
    }
}

impl LogMessage for Value {
    fn to_log_string(&self) -> String {
        self.to_string()
    }
}

impl ContextRequest {
    /// Returns the body read as JSON.
    pub fn body_json<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_slice(&self.body_binary())
    }

    /// Returns the body: as JSON where the content type says so (an empty object where it is not), else as text.
    pub fn body(&self) -> Value {
        let content_type = self.headers.get("content-type").map(|value| value.to_lowercase());
        if content_type.is_some_and(|value| value.contains("application/json")) {
            return self.body_json().unwrap_or_else(|_| Value::Object(Default::default()));
        }
        Value::String(self.body_text())
    }
}
