//! Serves a function written in Rust.
//!
//! ```ignore
//! use martlet::{json, Json, Request};
//!
//! pub fn handle(request: Request) -> Json {
//!     json!({"path": request.path})
//! }
//! ```

mod answer;
mod connection;
mod failure;
mod head;
pub mod json;
pub mod logs;
mod request;
mod response;
mod server;

pub use failure::Failure;
pub use json::{BadJson, Json};
pub use request::{Headers, Request};
pub use response::{Body, IntoResponse, Response};
pub use server::{serve, startup, stop};
