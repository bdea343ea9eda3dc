//! One connection: requests are read from it and bytes of responses written to it, by one thread.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::head::{BadRequest, Head, Length, MAX_HEAD};

const RECEIVE_BYTES: usize = 64 * 1024;

/// Why no (further) request could be read.
pub enum Ended {
    /// The peer has left, or the process ends.
    Gone,
    Refused(BadRequest),
}

impl From<io::Error> for Ended {
    fn from(_: io::Error) -> Ended {
        Ended::Gone
    }
}

impl From<BadRequest> for Ended {
    fn from(bad: BadRequest) -> Ended {
        Ended::Refused(bad)
    }
}

pub struct Connection {
    stream: UnixStream,
    buffer: Vec<u8>,
    max_body: usize,
}

/// What ends a connection from another thread, between two requests.
pub struct Ending {
    stream: UnixStream,
    pub idle: AtomicBool,
}

impl Ending {
    pub fn of(connection: &Connection) -> io::Result<Ending> {
        Ok(Ending { stream: connection.stream.try_clone()?, idle: AtomicBool::new(true) })
    }

    pub fn end_if_idle(&self) {
        if self.idle.load(Ordering::SeqCst) {
            let _ = self.stream.shutdown(Shutdown::Read);
        }
    }
}

impl Connection {
    pub fn new(stream: UnixStream, max_body: usize) -> Connection {
        Connection { stream, buffer: Vec::new(), max_body }
    }

    /// Waits for a request.
    pub fn head(&mut self) -> Result<Head, Ended> {
        let mut searched = 0;
        loop {
            if let Some(end) = find(&self.buffer[searched..], b"\r\n\r\n").map(|at| at + searched) {
                let head = Head::parse(&self.buffer[..end])?;
                self.buffer.drain(..end + 4);
                return Ok(head);
            }
            if self.buffer.len() > MAX_HEAD {
                return Err(BadRequest(431, "the request's headers are too large".into()).into());
            }
            searched = self.buffer.len().saturating_sub(3);
            self.receive()?;
        }
    }

    /// Reads the whole body of a request.
    pub fn body(&mut self, length: &Length) -> Result<Vec<u8>, Ended> {
        match *length {
            Length::Known(0) => Ok(Vec::new()),
            Length::Known(size) => {
                self.check(size)?;
                let mut body = Vec::with_capacity(size);
                self.take(size, &mut body)?;
                Ok(body)
            }
            Length::Chunked => self.chunks(),
        }
    }

    fn chunks(&mut self) -> Result<Vec<u8>, Ended> {
        let mut body = Vec::new();
        loop {
            let line = self.line()?;
            let digits = line.split(';').next().unwrap_or("").trim_end_matches([' ', '\t']);
            let hexadecimal = (1..=8).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
            if !hexadecimal {
                return Err(BadRequest(400, "a chunk does not begin with its size".into()).into());
            }
            let size = usize::from_str_radix(digits, 16).unwrap_or(usize::MAX);
            if size == 0 {
                while !self.line()?.is_empty() {} // trailers mean nothing to a function
                return Ok(body);
            }
            self.check(body.len() + size)?;
            self.take(size, &mut body)?;
            if !self.line()?.is_empty() {
                return Err(BadRequest(400, "a chunk is longer than its size says".into()).into());
            }
        }
    }

    fn check(&self, size: usize) -> Result<(), BadRequest> {
        if size > self.max_body {
            return Err(BadRequest(413, format!("the request body is over {} bytes", self.max_body)));
        }
        Ok(())
    }

    fn take(&mut self, size: usize, into: &mut Vec<u8>) -> Result<(), Ended> {
        let ready = size.min(self.buffer.len());
        into.extend(self.buffer.drain(..ready));
        let missing = (size - ready) as u64;
        if missing > 0 && (&self.stream).take(missing).read_to_end(into)? as u64 != missing {
            return Err(Ended::Gone);
        }
        Ok(())
    }

    fn line(&mut self) -> Result<String, Ended> {
        loop {
            if let Some(end) = find(&self.buffer, b"\r\n") {
                let line = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
                self.buffer.drain(..end + 2);
                return Ok(line);
            }
            if self.buffer.len() > MAX_HEAD {
                return Err(BadRequest(400, "a line between chunks is too long".into()).into());
            }
            self.receive()?;
        }
    }

    fn receive(&mut self) -> Result<(), Ended> {
        let filled = self.buffer.len();
        self.buffer.resize(filled + RECEIVE_BYTES, 0);
        let received = self.stream.read(&mut self.buffer[filled..]).unwrap_or(0);
        self.buffer.truncate(filled + received);
        if received == 0 {
            return Err(Ended::Gone);
        }
        Ok(())
    }

    /// Sends bytes; an error means that the peer does not listen any more.
    pub fn send(&mut self, data: &[u8]) -> io::Result<()> {
        self.stream.write_all(data)
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}
