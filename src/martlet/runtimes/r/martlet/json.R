# JSON (RFC 8259). Objects are lists with names, arrays lists without, null is NULL.

json <- local({
  MAX_DEPTH <- 100

  TOKEN <- paste0(
    '"(?:[^"\\\\\\x00-\\x1f]++|\\\\(?:["\\\\/bfnrt]|u[0-9A-Fa-f]{4}))*+"',
    "|-?(?:0|[1-9][0-9]*+)(?:\\.[0-9]++)?+(?:[eE][-+]?[0-9]++)?+",
    "|true|false|null|[][{},:]|[ \\t\\r\\n]++"
  )
  ESCAPE <- "\\\\(?:u[dD][89abAB]..\\\\u[dD][c-fC-F]..|u....|.)"
  ESCAPED <- c('"' = '"', "\\" = "\\", "/" = "/", b = "\b", f = "\f", n = "\n", r = "\r", t = "\t")
  CONTROLS <- structure(sprintf("\\u%04x", 1:31), names = intToUtf8(1:31, multiple = TRUE))
  CONTROLS[c("\n", "\r", "\t")] <- c("\\n", "\\r", "\\t")

  refuse <- function(at, reason) {
    stop(structure(class = c("bad_json", "error", "condition"), list(message = paste(reason, "at byte", at), call = NULL)))
  }

  # Undoes the escapes of one string, in bytes; `from` is where it stands.
  unescape <- function(text, from) {
    bytes <- charToRaw(text)
    found <- gregexpr(ESCAPE, text, perl = TRUE, useBytes = TRUE)[[1]]
    at <- as.integer(found)
    size <- attr(found, "match.length")
    left <- rep(TRUE, length(bytes))
    left[rep(at, size) + sequence(size) - 1L] <- FALSE
    short <- at[size == 2]
    bytes[short] <- charToRaw(paste(ESCAPED[rawToChar(bytes[short + 1L], multiple = TRUE)], collapse = ""))
    left[short] <- TRUE

    long <- size > 2
    if (any(long)) {
      unit <- function(at) strtoi(substring(text, at + 2L, at + 5L), 16L)
      codes <- unit(at[long])
      pairs <- size[long] == 12
      if (any(pairs)) {
        codes[pairs] <- 0x10000 + (codes[pairs] - 0xD800) * 0x400 + unit(at[long][pairs] + 6L) - 0xDC00
      }
      if (any(codes == 0)) refuse(from, "a string of R cannot hold \\u0000:")
      if (any(codes >= 0xD800 & codes <= 0xDFFF)) refuse(from, "a half of a character")
      characters <- intToUtf8(codes, multiple = TRUE)
      sizes <- nchar(characters, "bytes")
      places <- rep(at[long], sizes) + sequence(sizes) - 1L
      bytes[places] <- charToRaw(paste(characters, collapse = ""))
      left[places] <- TRUE
    }
    rawToChar(bytes[left])
  }

  # Cuts a text into tokens: what they are, where they stand, and the values of strings and numbers.
  tokens <- function(text) {
    found <- gregexpr(TOKEN, text, perl = TRUE, useBytes = TRUE)[[1]]
    at <- as.integer(found)
    size <- attr(found, "match.length")
    expected <- c(1L, at + size)
    wrong <- expected != c(at, nchar(text, "bytes") + 1L)
    if (any(wrong)) refuse(expected[wrong][1] - 1L, "unexpected character")
    words <- substring(text, at, at + size - 1L)
    kinds <- substr(words, 1, 1)
    meant <- !kinds %in% c(" ", "\t", "\r", "\n")
    words <- words[meant]
    kinds <- kinds[meant]
    at <- at[meant] - 1L

    values <- vector("list", length(words))
    strings <- kinds == '"'
    inner <- substring(words[strings], 2L, nchar(words[strings], "bytes") - 1L)
    escaped <- grepl("\\", inner, fixed = TRUE, useBytes = TRUE)
    places <- at[strings]
    inner[escaped] <- vapply(which(escaped), function(one) unescape(inner[one], places[one]), "")
    Encoding(inner) <- "UTF-8"
    values[strings] <- inner
    numbers <- kinds %in% c("-", 0:9)
    read <- as.numeric(words[numbers])
    if (any(is.infinite(read))) refuse(at[numbers][is.infinite(read)][1], "a number is too large")
    values[numbers] <- read
    kinds[numbers] <- "0"
    values[kinds == "t"] <- TRUE
    values[kinds == "f"] <- FALSE
    list(kinds = c(kinds, "end"), at = c(at, nchar(text, "bytes")), values = values)
  }

  # Reads JSON from bytes. Raises a condition of the class bad_json.
  decode <- function(bytes) {
    if (any(bytes == 0)) refuse(which(bytes == 0)[1] - 1L, "unexpected character")
    text <- rawToChar(bytes)
    if (!validUTF8(text)) refuse(0, "what is not UTF-8 begins")
    Encoding(text) <- "latin1" # so that positions are those of bytes
    if (text == "") refuse(0, "there is nothing")
    found <- tokens(text)
    kinds <- found$kinds
    values <- found$values
    now <- 0L

    unexpected <- function() {
      refuse(found$at[now], if (kinds[now] == "end") "it ends too early" else "unexpected character")
    }
    value <- function(depth) {
      now <<- now + 1L
      switch(kinds[now],
        '"' = , "0" = , t = , f = values[[now]],
        n = NULL,
        "[" = several(depth + 1, "]", FALSE),
        "{" = several(depth + 1, "}", TRUE),
        unexpected()
      )
    }
    # What an array or an object holds.
    several <- function(depth, end, named) {
      if (depth > MAX_DEPTH) refuse(found$at[now], "it is nested too deeply")
      done <- list()
      names <- character()
      if (kinds[now + 1L] == end) {
        now <<- now + 1L
        return(if (named) structure(done, names = names) else done)
      }
      size <- 0L
      repeat {
        size <- size + 1L
        if (named) {
          now <<- now + 1L
          if (kinds[now] != '"') unexpected()
          names[size] <- values[[now]]
          now <<- now + 1L
          if (kinds[now] != ":") unexpected()
        }
        read <- value(depth)
        if (is.null(read)) done[size] <- list(NULL) else done[[size]] <- read
        now <<- now + 1L
        if (kinds[now] == end) break
        if (kinds[now] != ",") unexpected()
      }
      if (named) structure(done, names = names) else done
    }

    read <- value(0)
    now <- now + 1L
    if (kinds[now] != "end") unexpected()
    read
  }

  quoted <- function(text) {
    text <- enc2utf8(text)
    if (!all(validUTF8(text))) stop("a string that is not UTF-8 cannot be written as JSON", call. = FALSE)
    text <- gsub('"', '\\"', gsub("\\", "\\\\", text, fixed = TRUE), fixed = TRUE)
    if (any(grepl("[\x01-\x1f]", text, perl = TRUE))) {
      for (control in names(CONTROLS)) text <- gsub(control, CONTROLS[[control]], text, fixed = TRUE)
    }
    paste0('"', text, '"')
  }

  digits <- function(numbers) {
    written <- sprintf("%.15g", numbers)
    inexact <- is.finite(numbers) & as.numeric(written) != numbers
    written[inexact] <- sprintf("%.17g", numbers[inexact])
    written[!is.finite(numbers)] <- "null"
    written
  }

  # Each element of a vector as JSON.
  elements <- function(vector) {
    written <- switch(typeof(vector),
      character = quoted(as.character(vector)),
      logical = ifelse(vector, "true", "false"),
      integer = as.character(vector),
      double = digits(as.numeric(vector)),
      stop("a value of the type ", typeof(vector), " cannot be written as JSON", call. = FALSE)
    )
    written[is.na(vector)] <- "null"
    written
  }

  array <- function(written) paste0("[", paste(written, collapse = ","), "]")

  object <- function(names, written) {
    paste0("{", paste(if (length(written)) quoted(names), written, sep = ":", collapse = ","), "}")
  }

  rows <- function(table, one) array(vapply(seq_len(nrow(table)), function(row) encode(one(row)), ""))

  # Writes a value as JSON. A vector of one is that one, unless I() or dimensions make it an array.
  encode <- function(value) {
    if (is.null(value)) return("null")
    if (is.factor(value)) return(encode(structure(as.character(value), names = names(value))))
    if (inherits(value, "Date")) return(encode(structure(format(value), names = names(value))))
    if (inherits(value, "POSIXt")) return(encode(format(as.POSIXct(value), "%Y-%m-%dT%H:%M:%SZ", tz = "UTC")))
    if (is.data.frame(value)) return(rows(value, function(row) as.list(value[row, , drop = FALSE])))
    if (is.matrix(value)) return(rows(value, function(row) I(as.vector(value[row, ]))))
    written <- if (is.list(value)) vapply(value, encode, "", USE.NAMES = FALSE) else elements(value)
    if (!is.null(names(value))) return(object(names(value), written))
    if (!is.list(value) && length(value) == 1 && !inherits(value, "AsIs")) written else array(written)
  }

  environment()
})
