//! The server: a thread for each connection, from accept to close.

use std::env;
use std::fs::File;
use std::io::Write;
use std::os::fd::{FromRawFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::process;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use crate::answer::{refuse, send, Manner};
use crate::connection::{Connection, Ended, Ending};
use crate::failure::Failure;
use crate::head::Head;
use crate::json::json;
use crate::logs;
use crate::request::Request;
use crate::response::{IntoResponse, Response};

const LISTENER: RawFd = 3;
const ANSWER: RawFd = 4;
const SIGTERM: i32 = 15;
const SHUT_RDWR: i32 = 2;

extern "C" {
    fn signal(number: i32, handler: extern "C" fn(i32)) -> usize;
    fn shutdown(socket: RawFd, how: i32) -> i32;
    fn fcntl(descriptor: RawFd, command: i32, ...) -> i32;
}

static STOPPING: AtomicBool = AtomicBool::new(false);
static STARTUP: OnceLock<Duration> = OnceLock::new();

/// Wakes whoever waits in accept; all that may be done in a signal's handler.
extern "C" fn terminate(_: i32) {
    STOPPING.store(true, Ordering::SeqCst);
    unsafe { shutdown(LISTENER, SHUT_RDWR) };
}

/// Begins to end this process, as SIGTERM does: requests that run are finished.
pub fn stop() {
    terminate(SIGTERM);
}

/// Returns how long this program took to be ready.
pub fn startup() -> Duration {
    STARTUP.get().copied().unwrap_or_default()
}

#[derive(Default)]
struct Connections {
    open: Mutex<Vec<Arc<Ending>>>,
    closed: Condvar,
}

struct Shared<F> {
    handler: F,
    max_body: usize,
    connections: Connections,
}

/// Serves requests with the handler until SIGTERM, finishes those that run, and ends the process.
pub fn serve<F, R>(handler: F) -> !
where
    F: Fn(Request) -> R + Send + Sync + 'static,
    R: IntoResponse,
{
    let started = Instant::now();
    logs::install();
    if let Ok(code) = env::var("MARTLET_CODE") {
        let _ = env::set_current_dir(code);
    }
    let listener = unsafe {
        const F_SETFD: i32 = 2;
        const CLOSE_ON_EXEC: i32 = 1;
        fcntl(LISTENER, F_SETFD, CLOSE_ON_EXEC);
        signal(SIGTERM, terminate);
        UnixListener::from_raw_fd(LISTENER)
    };
    let max_body = number("MARTLET_MAX_BODY").unwrap_or(usize::MAX);
    let shared = Arc::new(Shared { handler, max_body, connections: Connections::default() });
    let took = *STARTUP.get_or_init(|| started.elapsed());
    ready(took);
    while !STOPPING.load(Ordering::SeqCst) {
        if let Ok((stream, _)) = listener.accept() {
            begin(&shared, stream);
        }
    }
    let mut open = shared.connections.open.lock().unwrap();
    while !open.is_empty() {
        open.iter().for_each(|connection| connection.end_if_idle());
        open = shared.connections.closed.wait_timeout(open, Duration::from_millis(100)).unwrap().0;
    }
    process::exit(0);
}

fn number<T: FromStr>(variable: &str) -> Option<T> {
    env::var(variable).ok()?.parse().ok()
}

fn ready(took: Duration) {
    let line = json!({"mode": "handler", "load_ms": took.as_secs_f64() * 1000.0});
    let mut file = unsafe { File::from_raw_fd(ANSWER) };
    let _ = file.write_all(format!("{line}\n").as_bytes());
}

fn begin<F, R>(shared: &Arc<Shared<F>>, stream: UnixStream)
where
    F: Fn(Request) -> R + Send + Sync + 'static,
    R: IntoResponse,
{
    let mut connection = Connection::new(stream, shared.max_body);
    let Ok(ending) = Ending::of(&connection).map(Arc::new) else { return };
    shared.connections.open.lock().unwrap().push(ending.clone());
    let (ours, handle) = (shared.clone(), ending.clone());
    let work = move || {
        match requests(&ours.handler, &mut connection, &ending) {
            Err(Ended::Refused(bad)) => refuse(&mut connection, bad),
            Ok(()) | Err(Ended::Gone) => {}
        }
        drop(connection);
        ours.connections.open.lock().unwrap().retain(|other| !Arc::ptr_eq(other, &ending));
        ours.connections.closed.notify_all();
    };
    if thread::Builder::new().spawn(work).is_err() {
        // No room for another thread: the peer sees its connection closed and tries another instance.
        shared.connections.open.lock().unwrap().retain(|other| !Arc::ptr_eq(other, &handle));
    }
}

/// Answers the requests of one connection, one after the other.
fn requests<F, R>(handler: &F, connection: &mut Connection, ending: &Ending) -> Result<(), Ended>
where
    F: Fn(Request) -> R,
    R: IntoResponse,
{
    loop {
        ending.idle.store(true, Ordering::SeqCst);
        let head = connection.head()?;
        ending.idle.store(false, Ordering::SeqCst);
        let body = connection.body(&head.length)?;
        let manner = Manner::of(&head);
        let response = match internal(&head) {
            Some(response) => response,
            None => {
                let request = Request::new(head, body);
                logs::work_on(request.id());
                respond(handler, request)
            }
        };
        let go_on = send(connection, &manner, response)?;
        logs::finish();
        logs::work_on("");
        if !go_on {
            return Ok(());
        }
    }
}

fn respond<F, R>(handler: &F, request: Request) -> Response
where
    F: Fn(Request) -> R,
    R: IntoResponse,
{
    let outcome = catch_unwind(AssertUnwindSafe(|| handler(request).into_response()));
    outcome.unwrap_or_else(|payload| Err(Failure::panic(payload))).unwrap_or_else(Failure::response)
}

/// Answers what the platform itself asks.
fn internal(head: &Head) -> Option<Response> {
    let rest = head.target.strip_prefix("/_martlet/")?;
    if rest == "health" && head.method == "GET" {
        return Some(Response::json(json!({"status": "ok"})));
    }
    let message = format!("there is no {}", head.target);
    Some(Response::json(json!({"error": {"type": "NotFound", "message": message}})).status(404))
}
