count <- 0

routes <- list(
  "/json" = function(request) list(hello = "world", unicode = "żółw 🐢", list = list(1, 2.5, NULL, TRUE)),
  "/echo" = function(request) {
    request$respond(request$body, headers = list("content-type" = request$header("Content-Type")))
  },
  "/inspect" = function(request) {
    list(
      method = request$method,
      path = request$path,
      query = request$query,
      headers = request$headers,
      length = length(request$body)
    )
  },
  "/text" = function(request) "text ✓",
  "/binary" = function(request) as.raw(0:255),
  "/empty" = function(request) NULL,
  "/status" = function(request) request$respond("teapot", 418, list("x-colour" = "blue")),
  "/raise" = function(request) stop("the reason ✗"),
  "/crash" = function(request) quit("no", 3),
  "/sleep" = function(request) {
    ms <- as.numeric(request$query$ms)
    Sys.sleep(ms / 1000)
    list(slept = ms)
  },
  "/environment" = function(request) list(GREETING = Sys.getenv("GREETING", NA)),
  "/log" = function(request) {
    cat("to stdout ✓\n")
    message("to stderr")
    warning("a warning")
    "logged"
  },
  "/count" = function(request) {
    count <<- count + 1
    list(count = count)
  },
  "/stream" = function(request) {
    left <- c("one\n", "two\n")
    function() {
      if (length(left) == 0) return(NULL)
      if (length(left) == 1) Sys.sleep(0.3)
      piece <- left[1]
      left <<- left[-1]
      piece
    }
  },
  "/length" = function(request) list(length = length(request$body)),
  "/large" = function(request) strrep("x", 5000000)
)

handle <- function(request) {
  route <- routes[[request$path]]
  if (is.null(route)) return(request$respond(list(error = paste("there is no", request$path)), 404))
  route(request)
}
