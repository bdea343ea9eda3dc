use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use std::{env, process, thread};

use martlet::{json, Json, Request, Response};

static COUNT: AtomicU64 = AtomicU64::new(0);

/// Does what every runtime's contract function does.
pub fn handle(request: Request) -> Result<Response, String> {
    Ok(match request.path.as_str() {
        "/json" => Response::json(json!({
            "hello": "world", "unicode": "żółw 🐢", "list": [1, 2.5, null, true],
        })),
        "/echo" => {
            let content_type = request.headers.get("content-type").unwrap_or("application/octet-stream").to_owned();
            Response::bytes(request.body).header("content-type", content_type)
        }
        "/inspect" => Response::json(inspect(&request)),
        "/text" => Response::text("text ✓"),
        "/binary" => Response::bytes((0..=255).collect::<Vec<u8>>()),
        "/empty" => Response::empty(),
        "/status" => Response::text("teapot").status(418).header("x-colour", "blue"),
        "/split" => Response::text("").header("x-colour", "blue\r\nx-split: 1"),
        "/raise" => return Err("the reason ✗".into()),
        "/crash" => process::exit(3),
        "/sleep" => {
            let milliseconds = request.query("ms").and_then(|text| text.parse().ok()).unwrap_or(0);
            thread::sleep(Duration::from_millis(milliseconds));
            Response::json(json!({"slept": milliseconds}))
        }
        "/environment" => Response::json(json!({"GREETING": env::var("GREETING").ok()})),
        "/log" => {
            println!("to stdout ✓");
            eprintln!("to stderr");
            martlet::warn!("a warning");
            Response::text("logged")
        }
        "/say" => {
            let word = request.query("word").unwrap_or_default();
            martlet::warn!("{word} before");
            thread::sleep(Duration::from_millis(100));
            martlet::warn!("{word} after");
            Response::text("said")
        }
        "/count" => Response::json(json!({"count": COUNT.fetch_add(1, Ordering::SeqCst) + 1})),
        "/stream" => Response::stream(["one\n", "two\n"].into_iter().enumerate().map(|(number, line)| {
            thread::sleep(Duration::from_millis(300 * number as u64));
            line
        })),
        "/length" => Response::json(json!({"length": request.body.len()})),
        "/large" => Response::text("x".repeat(5_000_000)),
        path => Response::text(format!("there is no {path}")).status(404),
    })
}

fn inspect(request: &Request) -> Json {
    let mut query = BTreeMap::new();
    for (name, value) in request.query_params() {
        query.entry(name).or_insert(value);
    }
    let query: Json = query.into_iter().collect();
    let headers: Json = request.headers.iter().collect();
    json!({
        "method": request.method.as_str(), "path": request.path.as_str(), "query": query, "headers": headers,
        "length": request.body.len(),
    })
}
