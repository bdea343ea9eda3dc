# What people are told when their code raises an error: type, message and traceback.

MESSAGE_CHARACTERS <- 4096
FRAMES <- 50

fail <- function(type, ...) {
  stop(structure(class = c(type, "error", "condition"), list(message = paste0(...), call = NULL)))
}

# The calls that are neither R's nor the shim's, whose code has base R around it; the innermost first.
user_calls <- function() {
  lines <- character()
  for (at in rev(seq_len(sys.nframe()))) {
    code <- environment(sys.function(at))
    if (is.null(code) || environmentName(topenv(code)) == "base") next
    call <- sys.call(at)
    place <- attr(call, "srcref")
    where <- if (is.null(place)) "" else paste0(basename(attr(place, "srcfile")$filename), ":", place[1], ": ")
    lines <- c(lines, paste0("    at ", where, deparse(call, nlines = 1)[1]))
    if (length(lines) == FRAMES) break
  }
  lines
}

valid <- function(text) iconv(enc2utf8(text), "UTF-8", "UTF-8", sub = "\ufffd")

describe <- function(raised, calls) {
  type <- class(raised)[1]
  message <- valid(conditionMessage(raised))
  call <- conditionCall(raised)
  where <- if (is.null(call)) "" else paste0(" in ", deparse(call, nlines = 1)[1])
  traceback <- paste(c(paste0(type, where, ": ", message), calls), collapse = "\n")
  list(type = type, message = substr(message, 1, MESSAGE_CHARACTERS), traceback = traceback)
}

# Evaluates an expression. Returns a list with its `value`, or with the `failure` that it raised: type, message,
# traceback. Messages and warnings become frames of the log.
guarded <- function(expression) {
  calls <- character()
  tryCatch(
    withCallingHandlers(
      list(value = expression),
      error = function(raised) calls <<- user_calls(),
      message = function(said) {
        logs$emit("stderr", sub("\n$", "", conditionMessage(said)))
        tryInvokeRestart("muffleMessage")
      },
      warning = function(said) {
        logs$emit("warning", conditionMessage(said))
        tryInvokeRestart("muffleWarning")
      }
    ),
    error = function(raised) list(failure = describe(raised, calls))
  )
}
