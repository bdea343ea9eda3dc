# The R shim: serves a function by the program protocol of docs/design.md, one request after the other. Requests come on
# descriptor 6 and responses go to 5 (runtime.toml says how), the specification is on 3; stdout and stderr are the log.
#
# It needs base R only. What is defined here is out of the way of what a function defines.

local({
  folder <- dirname(sub("^--file=", "", grep("^--file=", commandArgs(), value = TRUE)))
  for (file in list.files(file.path(folder, "martlet"), full.names = TRUE)) sys.source(file, environment())

  specification <- file("/dev/fd/3", "rb", raw = TRUE)
  requests <- file("/dev/fd/6", "rb", raw = TRUE)
  responses <- file("/dev/fd/5", "wb", raw = TRUE)

  send <- function(data) {
    writeBin(data, responses)
    flush(responses)
  }

  say <- function(answer) {
    answers <- file("/dev/fd/4", "wb", raw = TRUE)
    writeBin(charToRaw(paste0(json$encode(answer), "\n")), answers)
    close(answers)
  }

  # Runs what every request will run until R has compiled it, before there is code.
  warm <- function() {
    head <- list(method = "POST", target = "/?a=b", fields = list("content-type" = "application/json"))
    called <- function(request) list(path = request$path, json = request$json())
    for (time in 1:3) answer_request(called, head, charToRaw('{"a": [1, 2.5]}'), identity)
  }

  warm()
  line <- readLines(specification, 1, warn = FALSE)
  close(specification)
  if (length(line) == 0) quit("no")
  spec <- json$decode(charToRaw(line))
  if (length(spec$environment)) do.call(Sys.setenv, spec$environment)
  setwd(spec$code)

  began <- proc.time()[["elapsed"]]
  loaded <- guarded(load_function(spec$handler))
  if (!is.null(loaded$failure)) {
    say(list(error = loaded$failure))
    quit("no", 1)
  }
  say(list(mode = "handler", load_ms = round(1000 * (proc.time()[["elapsed"]] - began), 3)))

  while (!is.null(head <- read_head(requests))) {
    logs$request_id <- head$fields[["x-request-id"]]
    answer_request(loaded$value, head, read_body(requests, head), send)
    flush(stdout())
  }
  quit("no")
}, new.env(parent = baseenv()))
