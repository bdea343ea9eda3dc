# What handlers write to stderr: lines of the log, and the reason of those that fail.

# Starts what passes lines of stderr on to the log as they come, and knows the last one of a request.
martlet_watch_errors() {
  martlet_mark=$'\x04'"$RANDOM$RANDOM"
  exec 7>&2
  coproc martlet_errors {
    last=
    while IFS= read -r line; do
      if [[ $line == *"$martlet_mark" ]]; then
        line=${line%"$martlet_mark"}
        [[ $line ]] && last=$line && printf '%s\n' "$line" >&7
        printf '%s\n' "$last"
        last=
      else
        printf '%s\n' "$line" >&7
        [[ $line ]] && last=$line
      fi
    done
  }
  exec 8>&"${martlet_errors[1]}" 9<&"${martlet_errors[0]}"
}

# Asks for the last line of a request. `martlet_hear_error` waits for it, unless it has: by then the log has all of them.
martlet_ask_for_error() {
  printf '%s\n' "$martlet_mark" >&8
  martlet_asked=yes
}

martlet_hear_error() {
  [[ ${martlet_asked:-} ]] || return 0
  IFS= read -r -u 9 martlet_message
  martlet_asked=
}
