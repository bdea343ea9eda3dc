//! The types of Open Runtimes' contract for Rust, so that functions written for it compile here unchanged.

mod context;
mod serve;

#[cfg(feature = "serde")]
#[path = "serde.rs"]
mod json;
#[cfg(not(feature = "serde"))]
#[path = "plain.rs"]
mod json;

pub use context::{Context, ContextRequest, ContextResponse, LogMessage, Response};
pub use json::ToJson;
pub use serve::serve;
