# Requests and responses on the pipes of the shim, one after another. What they usually take starts no process (`$(…)`
# would, and costs as much as all the rest) and makes few system calls: a line is read from a pipe byte by byte.

martlet_held=16384 # bytes of a body that are read into a variable, which is faster than a process up to about here

# Reads a request: METHOD, PATH_INFO, QUERY_STRING, HEADER_*, the arrays QUERY and HEADERS, and martlet_body, the file
# that has the body. Fails where there is none any more.
martlet_read_request() {
  local LC_ALL=C IFS=$'\n' sizes script # characters are bytes
  IFS= read -r -N 33 -u 6 sizes || return
  sizes=($sizes)
  IFS= read -r -N "${sizes[0]}" -u 6 script || return
  martlet_read_body "${sizes[1]}" "${sizes[2]}"
  eval "$script"
}

# Reads a body of so many bytes, of which so many are NUL; Bash cannot hold those.
martlet_read_body() {
  local data
  martlet_body=$martlet_slot.body
  if (($1 == 0)); then
    martlet_body=/dev/null
  elif (($2 == 0 && $1 <= martlet_held)); then
    IFS= read -r -N "$1" -u 6 data
    printf '%s' "$data" >"$martlet_body"
  else
    head -c "$1" <&6 >"$martlet_body"
  fi
}

# Sends a response: status, header lines, and the body that lies in a file, once the log has what the handler said.
martlet_send() {
  local LC_ALL=C status=$1 lines=$2 file=$3 data held=0
  if ((status == 204 || status == 304)); then
    data= held=1
  elif IFS= read -r -d '' -n 65536 data <"$file"; then # it is larger, or has a NUL byte
    lines+="content-length: $(wc -c <"$file")"$'\r\n'
  else
    held=1 lines+="content-length: ${#data}"$'\r\n'
  fi
  [[ $METHOD == HEAD ]] && data= held=1
  martlet_hear_error
  printf sent >"$martlet_slot.begun"
  if ((held)); then
    printf 'HTTP/1.1 %s \r\n%s\r\n%s' "$status" "$lines" "$data" >&5
  else
    printf 'HTTP/1.1 %s \r\n%s\r\n' "$status" "$lines" >&5
    cat "$file" >&5
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
