//! JSON without serde: what displays as JSON, as `martlet::Json` does.

use std::fmt::Display;

use crate::context::ContextRequest;

/// What can be answered as JSON.
pub trait ToJson {
    fn to_json(&self) -> String;
}

impl<T: Display + ?Sized> ToJson for T {
    fn to_json(&self) -> String {
        self.to_string()
    }
}

impl ContextRequest {
    /// Returns the body read as JSON.
    pub fn body_json(&self) -> Result<martlet::Json, martlet::BadJson> {
        martlet::Json::parse(&self.body_text())
    }
}
