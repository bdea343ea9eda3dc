//! A response on its way: what it looks like on the wire.

use std::io;

use crate::connection::Connection;
use crate::failure::Failure;
use crate::head::{is_token, is_value, BadRequest, Head};
use crate::logs;
use crate::response::{Body, Response};
use std::panic::{catch_unwind, AssertUnwindSafe};

/// What a response must know of its request.
pub struct Manner {
    head_only: bool,
    keep_alive: bool,
    chunks: bool,
}

impl Manner {
    pub fn of(head: &Head) -> Manner {
        Manner { head_only: head.method == "HEAD", keep_alive: head.keep_alive, chunks: head.chunks }
    }
}

/// Sends a response. Returns whether the connection may carry another request.
pub fn send(connection: &mut Connection, manner: &Manner, response: Response) -> io::Result<bool> {
    let (head, response) = match start(&response) {
        Ok(head) => (head, response),
        Err(failure) => {
            let response = failure.response();
            (start(&response).unwrap_or_default(), response)
        }
    };
    let bodiless = matches!(response.status, 204 | 304);
    match response.body {
        Body::Whole(body) => {
            let mut data = head;
            if !bodiless {
                data.extend_from_slice(format!("content-length: {}\r\n", body.len()).as_bytes());
            }
            finish(&mut data, manner.keep_alive);
            logs::finish();
            if !bodiless && !manner.head_only {
                if body.len() > 64 * 1024 {
                    connection.send(&data)?;
                    data = body;
                } else {
                    data.extend_from_slice(&body);
                }
            }
            connection.send(&data)?;
            Ok(manner.keep_alive)
        }
        Body::Stream(pieces) => stream(connection, manner, head, bodiless, pieces),
    }
}

type Pieces = Box<dyn Iterator<Item = Vec<u8>>>;

/// Sends pieces as they come. The first is waited for, so that a panic before it still becomes a 500.
fn stream(
    connection: &mut Connection,
    manner: &Manner,
    mut data: Vec<u8>,
    bodiless: bool,
    mut pieces: Pieces,
) -> io::Result<bool> {
    let mut piece = match next(&mut pieces) {
        Ok(piece) => piece,
        Err(failure) => return send(connection, manner, failure.response()),
    };
    let keep_alive = manner.keep_alive && manner.chunks;
    if manner.chunks && !bodiless {
        data.extend_from_slice(b"transfer-encoding: chunked\r\n");
    }
    finish(&mut data, keep_alive);
    connection.send(&data)?;
    if bodiless || manner.head_only {
        return Ok(keep_alive);
    }
    while let Some(bytes) = piece {
        if !bytes.is_empty() && manner.chunks {
            let mut chunk = format!("{:x}\r\n", bytes.len()).into_bytes();
            chunk.extend_from_slice(&bytes);
            chunk.extend_from_slice(b"\r\n");
            connection.send(&chunk)?;
        } else {
            connection.send(&bytes)?;
        }
        piece = match next(&mut pieces) {
            Ok(piece) => piece,
            Err(_) => return Ok(false), // cut short, so that the client sees it is not whole
        };
    }
    logs::finish();
    if manner.chunks {
        connection.send(b"0\r\n\r\n")?;
    }
    Ok(keep_alive)
}

fn next(pieces: &mut Pieces) -> Result<Option<Vec<u8>>, Failure> {
    catch_unwind(AssertUnwindSafe(|| pieces.next())).map_err(Failure::panic)
}

/// Returns the status line and the headers, but for those that frame the body.
fn start(response: &Response) -> Result<Vec<u8>, Failure> {
    if !(200..=599).contains(&response.status) {
        let message = format!("{} is not an HTTP status (200 to 599)", response.status);
        return Err(Failure::new("ValueError", message));
    }
    let mut data = format!("HTTP/1.1 {} {}\r\n", response.status, reason(response.status)).into_bytes();
    for (name, value) in &response.headers {
        if !is_token(name) || !is_value(value) {
            return Err(Failure::new("ValueError", format!("{name:?}: {value:?} cannot be sent as a header")));
        }
        let name = name.to_ascii_lowercase();
        if !matches!(name.as_str(), "connection" | "content-length" | "keep-alive" | "transfer-encoding") {
            data.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
    }
    Ok(data)
}

fn finish(data: &mut Vec<u8>, keep_alive: bool) {
    if !keep_alive {
        data.extend_from_slice(b"connection: close\r\n");
    }
    data.extend_from_slice(b"\r\n");
}

/// Says what was wrong with a request, to a peer that still listens.
pub fn refuse(connection: &mut Connection, BadRequest(status, message): BadRequest) {
    logs::work_on("");
    let manner = Manner { head_only: false, keep_alive: false, chunks: false };
    let _ = send(connection, &manner, Response::text(message).status(status));
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        409 => "Conflict",
        413 => "Content Too Large",
        418 => "I'm a teapot",
        422 => "Unprocessable Content",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        _ => "Unknown",
    }
}
