# The request as a handler sees it: an environment, since `$` takes the beginning of a name for one in a list.

# Undoes percent-encoding; what is no UTF-8 then becomes U+FFFD.
decoded <- function(text) {
  for (at in grep("%", text, fixed = TRUE)) {
    bytes <- charToRaw(text[at])
    found <- gregexpr("%[0-9A-Fa-f]{2}", text[at], useBytes = TRUE)[[1]]
    if (found[1] > 0) {
      digits <- rawToChar(bytes[c(rbind(found + 1L, found + 2L))])
      bytes[found] <- as.raw(strtoi(substring(digits, 2 * seq_along(found) - 1, 2 * seq_along(found)), 16L))
      bytes <- bytes[-c(found + 1L, found + 2L)]
    }
    text[at] <- as_text(bytes)
  }
  text
}

# Bytes as text in UTF-8. A string of R cannot hold a NUL: it becomes U+FFFD too.
as_text <- function(bytes) {
  bytes[bytes == 0] <- as.raw(0xff)
  text <- iconv(rawToChar(bytes), "UTF-8", "UTF-8", sub = "\ufffd")
  Encoding(text) <- "UTF-8"
  text
}

query_params <- function(query_string) {
  if (query_string == "") return(structure(list(), names = character()))
  pairs <- strsplit(query_string, "&", fixed = TRUE)[[1]]
  pairs <- gsub("+", " ", pairs[pairs != ""], fixed = TRUE)
  names <- decoded(sub("=.*", "", pairs))
  values <- decoded(ifelse(grepl("=", pairs, fixed = TRUE), sub("^[^=]*=", "", pairs), ""))
  params <- lapply(unique(names), function(name) values[names == name])
  structure(params, names = unique(names))
}

new_request <- function(head, body) {
  request <- new.env(parent = emptyenv())
  arrived <- proc.time()[["elapsed"]]
  fields <- head$fields
  request$method <- head$method
  request$path <- decoded(sub("\\?.*", "", head$target))
  request$query_string <- if (grepl("?", head$target, fixed = TRUE)) sub("^[^?]*\\?", "", head$target) else ""
  request$query_params <- query_params(request$query_string)
  request$query <- lapply(request$query_params, `[`, 1)
  request$headers <- fields
  request$body <- body
  request$id <- fields[["x-request-id"]]
  request$function_name <- fields[["x-faas-function"]]
  request$revision <- fields[["x-faas-revision"]]
  request$deadline_ms <- if (!is.null(fields[["x-faas-deadline"]])) as.numeric(fields[["x-faas-deadline"]])

  request$header <- function(name) fields[[tolower(name)]]
  request$text <- function() as_text(body)
  request$json <- function() {
    if (length(body) == 0) return(structure(list(), names = character()))
    json$decode(body)
  }
  request$remaining_ms <- function() request$deadline_ms - 1000 * (proc.time()[["elapsed"]] - arrived)
  request$respond <- new_response
  request
}
