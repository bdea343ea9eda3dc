# What runs a request, and what a handler may call: `status`, `header`, `stream`, `log` and `json_string`.

# Sets the status of the response: status 404
status() {
  if [[ $1 != [2-5][0-9][0-9] ]]; then
    echo "status: '$1' is not an HTTP status (200 to 599)" >&2
    exit 1
  fi
  printf '%s' "$1" >"$martlet_work/status"
}

# Adds a header to the response: header "content-type: application/json"
header() {
  if [[ ! $1 =~ ^[A-Za-z0-9_.-]+: || $1 == *[$'\r\n']* ]]; then
    printf "header: %q cannot be sent\n" "$1" >&2
    exit 1
  fi
  local name=${1%%:*} value=${1#*:}
  case ${name,,} in
  connection | content-length | keep-alive | transfer-encoding) ;;
  *) printf '%s: %s\r\n' "${name,,}" "${value# }" >>"$martlet_work/headers" ;;
  esac
}

# Begins the response: what is printed from here on is sent line by line.
stream() {
  local coding=$'transfer-encoding: chunked\r\n'
  martlet_read_answer
  printf 'HTTP/1.1 %s \r\n%s%s\r\n' "${martlet_status:-200}" "$martlet_lines" "$coding" >&5
  printf streamed >"$martlet_work/streamed"
  if [[ $METHOD == HEAD ]]; then
    exec >/dev/null
  else
    exec > >(martlet_send_lines)
    martlet_sender=$!
  fi
}

# Writes a line of the log with a level: log warning "the disk is full"
log() {
  local level=$1
  shift
  local text="$*"
  printf '\x1e{"t":%s,"id":%s,"s":%s,"m":%s}\n' "$EPOCHREALTIME" \
    "$(json_string "${HEADERS[x-request-id]:-}")" "$(json_string "$level")" "$(json_string "${text:0:600}")" >&7
}

# Prints a text as a string of JSON.
json_string() {
  local text=$1 code character
  text=${text//\\/\\\\}
  text=${text//\"/\\\"}
  text=${text//$'\n'/\\n}
  text=${text//$'\r'/\\r}
  text=${text//$'\t'/\\t}
  for code in {1..8} 11 12 {14..31} 127; do
    printf -v character "\\x$(printf %x "$code")"
    [[ $text == *"$character"* ]] && text=${text//"$character"/$(printf '\\u%04x' "$code")}
  done
  printf '"%s"' "$text"
}

# Finds out of the configured handler: martlet_file, and martlet_function unless the file itself is to run.
martlet_locate() {
  local file
  martlet_file=${1%%:*} martlet_function=
  [[ $1 == *:* ]] && martlet_function=${1#*:}
  [[ -f $martlet_file.sh ]] && martlet_file=$martlet_file.sh
  if [[ ! -f $martlet_file ]]; then
    [[ $1 == handle ]] || martlet_function=$1
    martlet_file=
    for file in handler.sh main.sh src/main.sh function.sh index.sh app.sh *.sh; do
      [[ -f $file ]] && martlet_file=$file && break
    done
    if [[ -z $martlet_file ]]; then
      echo "there is no handler.sh; name the file in 'handler'" >&2
      return 1
    fi
  fi
  if [[ -z $martlet_function ]] && grep -Eq '^[[:space:]]*(function[[:space:]]+handle\>|handle[[:space:]]*\()' "$martlet_file"; then
    martlet_function=handle
  fi
  return 0
}

# Starts what passes lines of stderr on to the log as they come, and knows the last one of a request.
martlet_watch_errors() {
  martlet_mark=$'\x04'"$RANDOM$RANDOM$RANDOM"
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

# Runs the handler and sends what it answers. Fails where a response was cut short, which nothing else can tell.
martlet_answer() {
  local code message
  : >"$martlet_work/status" >"$martlet_work/headers" >"$martlet_work/streamed"
  (
    trap 'martlet_end' EXIT
    trap - TERM
    exec 6<&-
    martlet_run
  ) <"$martlet_work/body" >"$martlet_work/output" 2>&8
  code=$?
  printf '%s\n' "$martlet_mark" >&8
  IFS= read -r -u 9 message
  if [[ -s $martlet_work/streamed ]]; then
    ((code == 0)) || return
    [[ $METHOD == HEAD ]] || printf '0\r\n\r\n' >&5
  elif ((code)); then
    martlet_fail "$code" "${message:-the handler ended with exit status $code}"
  else
    martlet_read_answer
    if [[ -z $martlet_status && ! -s $martlet_work/output ]]; then
      martlet_status=204
    fi
    martlet_send "${martlet_status:-200}" "$martlet_lines" "$martlet_work/output"
  fi
}

martlet_run() {
  if [[ $martlet_function ]]; then
    "$martlet_function"
  else
    source "./$martlet_file"
  fi
}

# Lets a stream be sent to its end before the request is over.
martlet_end() {
  local code=$?
  if [[ ${martlet_sender:-} ]]; then
    exec >&-
    wait "$martlet_sender"
  fi
  exit "$code"
}

# Reads what the handler has said with `status` and `header`.
martlet_read_answer() {
  IFS= read -r martlet_status <"$martlet_work/status"
  IFS= read -r -d '' martlet_lines <"$martlet_work/headers"
  if [[ $'\n'$martlet_lines != *$'\ncontent-type:'* ]]; then
    martlet_lines+=$'content-type: text/plain; charset=utf-8\r\n'
  fi
}

martlet_fail() {
  printf '{"type":"ExitStatus%d","message":%s}' "$1" "$(json_string "$2")" >"$martlet_work/output"
  martlet_send 500 $'content-type: application/json\r\nx-martlet-error: ExitStatus'"$1"$'\r\n' "$martlet_work/output"
}
