# Requests and responses on the pipes of the shim (RFC 9112): each body of a request has a content-length.

OUR_FIELDS <- c("connection", "content-length", "keep-alive", "transfer-encoding")

# What came in a head: UTF-8 where it is that, else Latin-1.
head_text <- function(bytes) {
  Encoding(bytes) <- "UTF-8"
  other <- !validUTF8(bytes)
  if (any(other)) bytes[other] <- iconv(bytes[other], "latin1", "UTF-8")
  bytes
}

# Returns the next head (method, target, fields by lower-case name); NULL where no more come.
read_head <- function(file) {
  lines <- character()
  repeat {
    line <- readLines(file, 1, warn = FALSE)
    if (length(line) == 0) return(NULL)
    if (line == "") break
    lines <- c(lines, line)
  }
  lines <- head_text(lines)
  first <- strsplit(lines[1], " ", fixed = TRUE)[[1]]
  lines <- lines[-1]
  colons <- regexpr(": ", lines, fixed = TRUE)
  fields <- as.list(substring(lines, colons + 2L))
  names(fields) <- substr(lines, 1L, colons - 1L)
  list(method = first[1], target = first[2], fields = fields)
}

read_body <- function(file, head) readBin(file, "raw", as.integer(head$fields[["content-length"]]))

# Writes headers, a list or vector with names, as they stand on the wire; several values as several lines. Those that
# frame the body are left out. Raises an error where a name or value would end its line.
header_lines <- function(headers) {
  lines <- character()
  for (at in seq_along(headers)) {
    name <- tolower(names(headers)[at])
    values <- enc2utf8(as.character(headers[[at]]))
    if (!grepl("^[!#$%&'*+.^_`|~0-9a-z-]+$", name, perl = TRUE) || any(grepl("[\r\n]", values))) {
      stop(encodeString(name, quote = '"'), ": this cannot be sent as a header", call. = FALSE)
    }
    if (!name %in% OUR_FIELDS) lines <- c(lines, paste0(name, ": ", values, "\r\n", recycle0 = TRUE))
  }
  paste(lines, collapse = "")
}

# All of a response whose body, bytes, is known.
whole <- function(head, status, lines, body) {
  bare <- status %in% c(204, 304)
  length <- if (bare) "" else sprintf("content-length: %d\r\n", length(body))
  start <- charToRaw(sprintf("HTTP/1.1 %d \r\n%s%s\r\n", status, lines, length))
  if (bare || head$method == "HEAD") start else c(start, body)
}

# The head of a response whose body comes in chunks.
start_stream <- function(status, lines) {
  charToRaw(sprintf("HTTP/1.1 %d \r\n%stransfer-encoding: chunked\r\n\r\n", status, lines))
}

# A piece of such a body; an empty one ends it.
chunk <- function(bytes) c(charToRaw(sprintf("%x\r\n", length(bytes))), bytes, charToRaw("\r\n"))
