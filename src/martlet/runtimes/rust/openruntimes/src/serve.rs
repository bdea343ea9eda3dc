//! Serves a function, and keeps what its platform and it agree on in headers and paths.

use std::collections::HashMap;
use std::env;
use std::panic::{catch_unwind, resume_unwind, AssertUnwindSafe};
use std::sync::mpsc::{sync_channel, RecvTimeoutError};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::context::{Context, ContextRequest, Response};

const HIDDEN: &str = "x-open-runtimes-";
const WRONG_SECRET: &str = "Unauthorized. Provide correct \"x-open-runtimes-secret\" header.";
const WRONG_TIMEOUT: &str = "Header \"x-open-runtimes-timeout\" must be an integer greater than 0.";
const TIMED_OUT: &str = "Execution timed out.";

/// Serves requests with the function until SIGTERM.
pub fn serve<F>(function: F) -> !
where
    F: Fn(Context) -> Response + Send + Sync + 'static,
{
    let function = Arc::new(function);
    martlet::serve(move |request: martlet::Request| answer(&function, request))
}

fn answer<F>(function: &Arc<F>, request: martlet::Request) -> martlet::Response
where
    F: Fn(Context) -> Response + Send + Sync + 'static,
{
    match (request.method.as_str(), request.path.as_str()) {
        ("GET", "/__opr/health") => return martlet::Response::text("OK"),
        ("GET", "/__opr/timings") => {
            return martlet::Response::text(format!("startup={:.6}", martlet::startup().as_secs_f64()))
        }
        _ => {}
    }
    let log_id = log_id(&request);
    let response = match terms(&request) {
        Ok(timeout) => run(function, context(request), timeout),
        Err(message) => martlet::Response::text(message).status(500),
    };
    match log_id {
        Some(id) => response.header("x-open-runtimes-log-id", id),
        None => response,
    }
}

/// Returns the id of the log, where the client speaks of Open Runtimes at all.
fn log_id(request: &martlet::Request) -> Option<String> {
    if !request.headers.iter().any(|(name, _)| name.starts_with(HIDDEN)) {
        return None;
    }
    let fresh = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos());
    let given = request.headers.get("x-open-runtimes-log-id").filter(|id| !id.is_empty());
    Some(given.map_or_else(|| format!("{:x}", fresh()), str::to_owned))
}

/// Returns how long a request may take (None: there is no bound), or why it must not be run.
fn terms(request: &martlet::Request) -> Result<Option<Duration>, &'static str> {
    let given = |name| request.headers.get(name).unwrap_or("");
    let timeout = match given("x-open-runtimes-timeout") {
        "" => None,
        text => match text.parse() {
            Ok(seconds) if seconds > 0 => Some(Duration::from_secs(seconds)),
            _ => return Err(WRONG_TIMEOUT),
        },
    };
    let secret = env::var("OPEN_RUNTIMES_SECRET").unwrap_or_default();
    if !secret.is_empty() && given("x-open-runtimes-secret") != secret {
        return Err(WRONG_SECRET);
    }
    Ok(timeout)
}

/// Runs the function; one that takes too long is left behind in a process that ends.
fn run<F>(function: &Arc<F>, context: Context, timeout: Option<Duration>) -> martlet::Response
where
    F: Fn(Context) -> Response + Send + Sync + 'static,
{
    let Some(timeout) = timeout else { return sent(function(context)) };
    let (sender, receiver) = sync_channel(1);
    let (function, id) = (function.clone(), martlet::logs::current_request());
    thread::spawn(move || {
        martlet::logs::work_on(&id);
        let _ = sender.send(catch_unwind(AssertUnwindSafe(|| function(context))));
    });
    match receiver.recv_timeout(timeout) {
        Ok(Ok(response)) => sent(response),
        Ok(Err(payload)) => resume_unwind(payload),
        Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
            martlet::error!("{TIMED_OUT}");
            martlet::stop(); // nothing else ends a thread
            martlet::Response::text(TIMED_OUT).status(500)
        }
    }
}

fn context(mut request: martlet::Request) -> Context {
    let query = query(&mut request);
    let header = |name| request.headers.get(name).map(str::to_owned);
    let scheme = header("x-forwarded-proto").unwrap_or_else(|| "http".into());
    let authority = header("x-forwarded-host").or_else(|| header("host")).unwrap_or_default();
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => (host.to_owned(), port.parse().ok()),
        _ => (authority.clone(), None),
    };
    let mut headers: HashMap<String, String> = HashMap::new();
    for (name, value) in request.headers.iter().filter(|(name, _)| !name.starts_with(HIDDEN)) {
        headers.entry(name.into()).and_modify(|all| *all += &format!(", {value}")).or_insert_with(|| value.into());
    }
    let question = if request.query_string.is_empty() { "" } else { "?" };
    let silent = matches!(header("x-open-runtimes-logging").as_deref(), Some("disabled" | "disable"));
    let id = request.id().to_owned();
    let req = ContextRequest {
        url: format!("{scheme}://{authority}{}{question}{}", request.path, request.query_string),
        port: port.unwrap_or(if scheme == "https" { 443 } else { 80 }),
        scheme,
        host,
        headers,
        query,
        method: request.method,
        path: request.path,
        query_string: request.query_string,
        body: request.body,
    };
    Context::new(req, silent, id)
}

/// The last value of each name of the query, decoded; a plus sign is one, and no space.
fn query(request: &mut martlet::Request) -> HashMap<String, String> {
    let escaped = request.query_string.replace('+', "%2B");
    let sent = std::mem::replace(&mut request.query_string, escaped);
    let query = request.query_params().into_iter().collect();
    request.query_string = sent;
    query
}

fn sent(response: Response) -> martlet::Response {
    let mut answer = martlet::Response::bytes(response.body).status(response.status_code);
    answer.headers.clear();
    for (name, value) in response.headers {
        let name = name.to_ascii_lowercase();
        if name == "content-type" {
            answer = answer.header(name, with_charset(value));
        } else if !name.starts_with(HIDDEN) {
            answer = answer.header(name, value);
        }
    }
    answer
}

fn with_charset(content_type: String) -> String {
    let lower = content_type.to_ascii_lowercase();
    let text = lower.starts_with("text/") || lower.starts_with("application/json");
    if text && !lower.contains("charset=") {
        return content_type + "; charset=utf-8";
    }
    content_type
}
