//! What AWS's client for Rust is asked to do: it knows nothing of Martlet.

use lambda_runtime::{run, service_fn, Error, LambdaEvent};
use serde_json::{json, Value};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    run(service_fn(handle)).await
}

async fn handle(event: LambdaEvent<Value>) -> Result<Value, Error> {
    let (event, context) = event.into_parts();
    if event["rawPath"] == "/raise" {
        return Err("the reason ✗".into());
    }
    println!("serving {}", context.request_id);
    let name = event["queryStringParameters"]["name"].as_str().unwrap_or_default();
    let body = event["body"].as_str().unwrap_or_default();
    Ok(json!({
        "statusCode": 201,
        "headers": {"content-type": "text/plain; charset=utf-8", "x-id": context.request_id},
        "body": format!("{name} ✓ {body}"),
    }))
}
