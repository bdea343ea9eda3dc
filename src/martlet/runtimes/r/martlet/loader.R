# Finds the user's function: which file to load, and what in it to call.

FILES <- c("handler.R", "main.R", "function.R", "index.R", "app.R")
FUNCTIONS <- c("handle", "handler", "main")

is_source <- function(path) grepl("\\.[Rr]$", path) && file.exists(path)

usual_file <- function() {
  for (path in FILES) if (is_source(path)) return(path)
  found <- list.files(pattern = "\\.[Rr]$")
  if (length(found) == 1) return(found)
  fail("load_error", "there is none of ", paste(FILES, collapse = ", "), "; name the file in 'handler'")
}

# `handle`, `file`, `file.R`, `file:function`, `function`. Returns the file and what its function may be called.
locate <- function(handler) {
  if (handler == "handle") return(list(usual_file(), FUNCTIONS))
  parts <- strsplit(handler, ":", fixed = TRUE)[[1]]
  for (path in paste0(parts[1], c("", ".R", ".r"))) {
    if (is_source(path)) return(list(path, if (length(parts) > 1) parts[2] else FUNCTIONS))
  }
  list(usual_file(), handler)
}

# Loads the user's code and returns what to call with a request. Raises an error where there is nothing.
load_function <- function(handler) {
  found <- locate(handler)
  sys.source(found[[1]], globalenv(), keep.source = TRUE)
  for (name in found[[2]]) {
    if (exists(name, globalenv(), mode = "function", inherits = FALSE)) return(get(name, globalenv(), mode = "function"))
  }
  fail("load_error", found[[1]], " has no function ", found[[2]][1])
}
