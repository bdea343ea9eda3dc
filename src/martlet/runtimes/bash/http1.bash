# Requests and responses on the pipes of the shim: one after another, each body with a content-length. What they usually
# take starts no process: `$(…)` would, and costs as much as all the rest.

# Reads a request: METHOD, REQUEST_PATH, QUERY_STRING, HEADER_*, the arrays QUERY and HEADERS, and the body into a file.
# Fails where there is none any more.
martlet_read_request() {
  local line name target length=0
  IFS= read -r -u 6 line || return
  read -r METHOD target _ <<<"${line%$'\r'}"
  unset -v "${!HEADER_@}" HEADERS QUERY
  declare -gA HEADERS=() QUERY=()
  while IFS= read -r -u 6 line; do
    line=${line%$'\r'}
    [[ $line ]] || break
    name=${line%%:*}
    name=${name,,}
    line=${line#*:}
    HEADERS[$name]=${line# }
    if [[ $name != *[!a-z0-9-]* ]]; then
      name=${name//-/_}
      declare -gx "HEADER_${name^^}=${line# }"
    fi
  done
  length=${HEADERS[content-length]:-0}
  if ((length)); then head -c "$length" <&6; fi >"$martlet_work/body"
  QUERY_STRING=
  [[ $target == *\?* ]] && QUERY_STRING=${target#*\?}
  martlet_decode REQUEST_PATH "${target%%\?*}"
  martlet_read_query
  PATH_INFO=$REQUEST_PATH
  export METHOD PATH_INFO QUERY_STRING
}

martlet_read_query() {
  local pair pairs name value
  IFS='&' read -r -a pairs <<<"${QUERY_STRING//+/ }"
  for pair in "${pairs[@]}"; do
    value=
    [[ $pair == *=* ]] && value=${pair#*=}
    martlet_decode name "${pair%%=*}"
    martlet_decode value "$value"
    [[ -z $name || -v QUERY[$name] ]] || QUERY[$name]=$value
  done
}

# Sets the variable named first to the text without its percent-encoding.
martlet_decode() {
  local text=${2//\\/\\\\}
  printf -v "$1" '%b' "${text//%/\\x}"
}

# Sends a response: status, header lines, and the body that lies in a file.
martlet_send() {
  local LC_ALL=C status=$1 lines=$2 file=$3 data
  if ((status == 204 || status == 304)); then
    printf 'HTTP/1.1 %s \r\n%s\r\n' "$status" "$lines" >&5
  elif IFS= read -r -d '' -n 65536 data <"$file"; then # it is larger, or has a NUL byte, which Bash cannot hold
    printf 'HTTP/1.1 %s \r\n%scontent-length: %d\r\n\r\n' "$status" "$lines" "$(wc -c <"$file")" >&5
    [[ $METHOD == HEAD ]] || cat "$file" >&5
  else
    printf 'HTTP/1.1 %s \r\n%scontent-length: %d\r\n\r\n' "$status" "$lines" "${#data}" >&5
    [[ $METHOD == HEAD ]] || printf '%s' "$data" >&5
  fi
}

# Sends what comes on stdin as chunks, each line as soon as it is there.
martlet_send_lines() {
  local LC_ALL=C line
  while IFS= read -r line; do
    printf '%x\r\n%s\n\r\n' $((${#line} + 1)) "$line" >&5
  done
  [[ -z $line ]] || printf '%x\r\n%s\r\n' ${#line} "$line" >&5
}

martlet_milliseconds() {
  local from=${1//[!0-9]/} to=${2//[!0-9]/}
  local micros=$((10#${to:-0} - 10#${from:-0}))
  printf '%d.%03d' $((micros / 1000)) $((micros % 1000))
}
