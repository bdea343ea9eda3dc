# What a handler may call: `status`, `header`, `stream`, `log` and `json_string`; and how it is found.

# Sets the status of the response: status 404
status() {
  if [[ $1 != [2-5][0-9][0-9] ]]; then
    echo "status: '$1' is not an HTTP status (200 to 599)" >&2
    exit 1
  fi
  printf ':status: %s\r\n' "$1" >&21
}

# Adds a header to the response: header "content-type: application/json"
header() {
  if [[ ! $1 =~ ^[A-Za-z0-9_.-]+: || $1 == *[$'\r\n']* ]]; then
    printf "header: %q cannot be sent\n" "$1" >&2
    exit 1
  fi
  printf '%s:%s\r\n' "${1%%:*}" "${1#*:}" >&21
}

# Begins the response: what is printed from here on is sent as it comes.
stream() {
  printf 'stream %d 0\n' "$martlet_request" >&20
  exec >&22
}

# Writes a line of the log with a level: log warning "the disk is full"
log() {
  local level id text
  martlet_quote level "$1"
  shift
  text="$*"
  martlet_quote text "${text:0:600}"
  martlet_quote id "${HEADERS[x-request-id]:-}"
  printf '\x1e{"t":%s,"id":%s,"s":%s,"m":%s}\n' "$EPOCHREALTIME" "$id" "$level" "$text" >&24
}

# Prints a text as a string of JSON.
json_string() {
  local martlet_quoted
  martlet_quote martlet_quoted "$1"
  printf '%s' "$martlet_quoted"
}

# Sets the variable named first to a text as a string of JSON.
martlet_quote() {
  local martlet_text=$2 martlet_code martlet_hex martlet_character
  martlet_text=${martlet_text//\\/\\\\}
  martlet_text=${martlet_text//\"/\\\"}
  if [[ $martlet_text == *[[:cntrl:]]* ]]; then
    martlet_text=${martlet_text//$'\n'/\\n}
    martlet_text=${martlet_text//$'\r'/\\r}
    martlet_text=${martlet_text//$'\t'/\\t}
    for martlet_code in {1..8} 11 12 {14..31} 127; do
      printf -v martlet_hex '%02x' "$martlet_code"
      printf -v martlet_character '%b' "\\x$martlet_hex"
      martlet_text=${martlet_text//"$martlet_character"/"\\u00$martlet_hex"}
    done
  fi
  printf -v "$1" '"%s"' "$martlet_text"
}

# Finds out of the configured handler: martlet_file, and martlet_function unless the file itself is to run.
martlet_locate() {
  local file text
  local pattern=$'\n''[[:space:]]*(function[[:space:]]+handle([^[:alnum:]_]|$)|handle[[:space:]]*\()'
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
  if [[ -z $martlet_function ]]; then
    IFS= read -r -d '' text <"$martlet_file"
    [[ $'\n'$text =~ $pattern ]] && martlet_function=handle
  fi
  return 0
}
