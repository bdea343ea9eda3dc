# Answers a request with what the user's function returns for it.

# All of the response to a request whose handler raised an error. The traceback goes to the log.
failed <- function(head, failure) {
  if (failure$type == "bad_json") {
    problem <- list(type = "about:blank", status = 400, code = "bad_json", title = "The request body is not JSON")
    problem$detail <- failure$message
    problem$request_id <- head$fields[["x-request-id"]]
    lines <- header_lines(list("content-type" = "application/problem+json"))
    return(whole(head, 400, lines, charToRaw(json$encode(problem))))
  }
  logs$emit("error", failure$traceback)
  named <- gsub("[^!-~]", "?", failure$type, perl = TRUE)
  lines <- header_lines(list("content-type" = JSON_TYPE, "x-martlet-error" = named))
  whole(head, 500, lines, charToRaw(json$encode(failure[c("type", "message")])))
}

# Sends the pieces as they come; the first is known already.
stream <- function(head, response, piece, pieces, send) {
  send(start_stream(response$status, response_lines(response, type_of(piece))))
  if (head$method == "HEAD") return()
  done <- guarded(while (!is.null(piece)) {
    bytes <- encode_body(piece)
    if (length(bytes)) send(chunk(bytes))
    piece <- pieces()
  })
  if (!is.null(done$failure)) {
    # The response was cut short, which nothing else can tell.
    logs$emit("error", done$failure$traceback)
    quit("no", 1)
  }
  send(chunk(raw()))
}

# Answers one request by giving `send` bytes.
answer_request <- function(called, head, body, send) {
  answered <- guarded({
    response <- as_response(called(new_request(head, body)))
    pieces <- pieces_of(response$body)
    if (!is.null(pieces)) {
      piece <- pieces()
      lines <- response_lines(response, type_of(piece))
      NULL
    } else {
      whole(head, response$status, response_lines(response, type_of(response$body)), encode_body(response$body))
    }
  })
  if (!is.null(answered$failure)) {
    send(failed(head, answered$failure))
  } else if (is.null(answered$value)) {
    stream(head, response, piece, pieces, send)
  } else {
    send(answered$value)
  }
}
