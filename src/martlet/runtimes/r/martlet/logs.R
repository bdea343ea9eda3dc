# What the function says, as frames that tell which request they belong to. What R itself prints are plain lines.

logs <- local({
  FRAME <- 4096 # bytes a pipe takes without mixing them with another writer's
  request_id <- NULL

  # Writes a message with a level: `stderr`, `warning`, `error`.
  emit <- function(level, message) {
    head <- sprintf('\x1e{"t":%.3f,"id":%s,"s":"%s","m":', as.numeric(Sys.time()), json$encode(request_id), level)
    # No character takes more than six bytes in JSON.
    room <- (FRAME - nchar(head, "bytes") - 4) %/% 6
    codes <- utf8ToInt(iconv(paste(message, collapse = "\n"), "UTF-8", "UTF-8", sub = "\ufffd"))
    for (from in seq(1, max(1, length(codes)), room)) {
      piece <- intToUtf8(codes[seq_len(length(codes)) >= from & seq_len(length(codes)) < from + room])
      cat(paste0(head, json$encode(piece), "}\n"), file = stderr())
    }
  }

  environment()
})
