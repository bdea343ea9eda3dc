use martlet::{json, Json};
use openruntimes::{Context, Response};

/// Does what every runtime's function for Open Runtimes does.
pub fn main(context: Context) -> Response {
    let (req, res) = (&context.req, &context.res);
    match req.path.as_str() {
        "/text" => res.text("text ✓", None, None),
        "/json" => res.json(json!({"hello": "world", "unicode": "żółw 🐢"}), None, None),
        "/binary" => res.binary((0..=255).collect(), None, None),
        "/empty" => res.empty(),
        "/redirect" => res.redirect("/target", None, None),
        "/request" => {
            let query: Json = req.query.iter().map(|(name, value)| (name.clone(), value)).collect();
            let headers: Json = req.headers.iter().map(|(name, value)| (name.clone(), value)).collect();
            let document = json!({
                "method": &req.method, "url": &req.url, "scheme": &req.scheme, "host": &req.host, "port": req.port,
                "path": &req.path, "query": query, "queryString": &req.query_string, "headers": headers,
                "bodyText": req.body_text(),
            });
            res.json(document, None, None)
        }
        "/body" => res.json(req.body_json().expect("the body is JSON"), None, None),
        "/log" => {
            context.log("info line");
            context.error("error line");
            res.text("logged", None, None)
        }
        "/raise" => panic!("the reason ✗"),
        path => res.text(format!("there is no {path}"), Some(404), None),
    }
}
