//! Turns CSV (RFC 4180) into JSON: each line becomes an object whose names are in the first line.

use martlet::{json, Json, Request, Response};

pub fn handle(request: Request) -> Response {
    let mut rows = rows(&request.text()).into_iter();
    let Some(names) = rows.next() else {
        return Response::json(json!({"error": "POST a table in CSV"})).status(422);
    };
    let objects: Vec<Json> = rows.map(|row| names.iter().cloned().zip(row).collect()).collect();
    Response::json(Json::Array(objects))
}

fn rows(text: &str) -> Vec<Vec<String>> {
    let (mut rows, mut row, mut field) = (Vec::new(), Vec::new(), String::new());
    let mut quoted = false;
    let mut letters = text.chars().filter(|&letter| letter != '\r').peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '"' if quoted && letters.next_if_eq(&'"').is_some() => field.push('"'),
            '"' => quoted = !quoted,
            ',' if !quoted => row.push(std::mem::take(&mut field)),
            '\n' if !quoted => {
                row.push(std::mem::take(&mut field));
                rows.push(std::mem::take(&mut row));
            }
            other => field.push(other),
        }
    }
    if !field.is_empty() || !row.is_empty() {
        row.push(field);
        rows.push(row);
    }
    rows
}
