# What a handler may return, and what becomes of it: a body of any kind, with a status and headers.

TEXT_TYPE <- "text/plain; charset=utf-8"
BYTES_TYPE <- "application/octet-stream"
JSON_TYPE <- "application/json"
PIECE_BYTES <- 65536

# Makes one. Raises an error for a bad status or bad headers.
new_response <- function(body = NULL, status = 200, headers = list()) {
  if (!is.numeric(status) || length(status) != 1 || !status %in% 200:599) {
    fail("bad_response", deparse(status, nlines = 1)[1], " is not an HTTP status (200 to 599)")
  }
  if (length(headers) && (is.null(names(headers)) || !(is.list(headers) || is.character(headers)))) {
    fail("bad_response", "headers must be a list or a vector with names")
  }
  structure(list(body = body, status = as.integer(status), headers = headers), class = "martlet_response")
}

# Turns whatever a handler returned into a response.
as_response <- function(value) {
  if (inherits(value, "martlet_response")) return(value)
  new_response(value, if (is.null(value)) 204 else 200)
}

# What returns the next piece of a streamed body, NULL at its end; NULL where the body is whole.
pieces_of <- function(body) {
  if (is.function(body)) return(body)
  if (!inherits(body, "connection")) return(NULL)
  if (!isOpen(body)) open(body, "rb")
  function() {
    bytes <- readBin(body, "raw", PIECE_BYTES)
    if (length(bytes)) return(bytes)
    close(body)
    NULL
  }
}

is_text <- function(body) {
  is.character(body) && length(body) == 1 && !is.na(body) && is.null(names(body)) && !inherits(body, "AsIs")
}

# A body, or a piece of one, as bytes.
encode_body <- function(body) {
  if (is.raw(body)) return(as.vector(body))
  text <- if (is_text(body)) enc2utf8(as.vector(body)) else if (!is.null(body)) json$encode(body) else ""
  charToRaw(text)
}

# The content type that a body has by itself.
type_of <- function(body) {
  if (is.null(body)) NULL else if (is.raw(body)) BYTES_TYPE else if (is_text(body)) TEXT_TYPE else JSON_TYPE
}

# The header lines, where the type is the content type unless the handler has named one.
response_lines <- function(response, type) {
  named <- "content-type" %in% tolower(names(response$headers))
  paste0(header_lines(response$headers), if (!named && !is.null(type)) paste0("content-type: ", type, "\r\n"))
}
