//! What a function logs, as frames that say which request they belong to.
//!
//! A frame is the byte 0x1e and one line of JSON, written at once and at most as long as a pipe takes in one piece, so
//! that frames of several threads never mix. What is printed instead is a plain line, which belongs to the request that
//! runs.

use std::any::Any;
use std::cell::RefCell;
use std::io::Write;
use std::panic;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::json::quote;

const FRAME_BYTES: usize = 4096;

thread_local! {
    static REQUEST: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Logs a line with the level `info`, as `println!` prints one.
#[macro_export]
macro_rules! info { ($($words:tt)*) => { $crate::logs::emit("info", &format!($($words)*)) }; }
/// Logs a line with the level `warning`.
#[macro_export]
macro_rules! warn { ($($words:tt)*) => { $crate::logs::emit("warning", &format!($($words)*)) }; }
/// Logs a line with the level `error`.
#[macro_export]
macro_rules! error { ($($words:tt)*) => { $crate::logs::emit("error", &format!($($words)*)) }; }

/// Says that from here on this thread works on that request (empty: on none).
pub fn work_on(id: &str) {
    REQUEST.with_borrow_mut(|request| {
        request.clear();
        request.push_str(id.get(..128).unwrap_or(id));
    });
}

/// Returns the id of the request that this thread works on.
pub fn current_request() -> String {
    REQUEST.with_borrow(Clone::clone)
}

/// Writes what was printed and has no line end yet: before a response ends, since whoever has that may look for it.
pub fn finish() {
    let _ = std::io::stdout().flush();
}

/// Writes text as frames of a stream: a level, or `stdout` and `stderr`.
pub fn emit(stream: &str, text: &str) {
    emit_for(&current_request(), stream, text);
}

/// The same for a request that another thread works on.
pub fn emit_for(id: &str, stream: &str, text: &str) {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64());
    let id = if id.is_empty() { "null".to_owned() } else { quote(id) };
    let head = format!("\x1e{{\"t\":{seconds:.3},\"id\":{id},\"s\":{},\"m\":", quote(stream));
    let room = FRAME_BYTES.saturating_sub(head.len() + "\"\"}\n".len());
    let mut rest = text;
    loop {
        let mut end = boundary(rest, room);
        let mut body = quote(&rest[..end]);
        while body.len() - 2 > room {
            end = boundary(rest, end / 2);
            body = quote(&rest[..end]);
        }
        let mut next = end;
        if let Some(line) = rest[..end].rfind('\n').filter(|_| end < rest.len()) {
            body = quote(&rest[..line]);
            next = line + 1;
        }
        let frame = format!("{head}{body}}}\n");
        let _ = std::io::stderr().write_all(frame.as_bytes()); // a log that nobody reads must not end a request
        rest = &rest[next..];
        if rest.is_empty() {
            return;
        }
    }
}

fn boundary(text: &str, most: usize) -> usize {
    let mut end = text.len().min(most);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    end
}

/// Panics become frames too, with the place where they happened.
pub(crate) fn install() {
    panic::set_hook(Box::new(|info| {
        let place = info.location().map(|place| format!(" at {place}")).unwrap_or_default();
        emit("error", &format!("panicked{place}:\n{}", panic_message(info.payload())));
    }));
}

pub(crate) fn panic_message(payload: &(dyn Any + Send)) -> &str {
    if let Some(text) = payload.downcast_ref::<&str>() {
        return text;
    }
    payload.downcast_ref::<String>().map_or("(a panic without a message)", String::as_str)
}
