handle() {
  case $PATH_INFO in
  /json)
    header "content-type: application/json"
    echo '{"hello": "world", "unicode": "żółw 🐢", "list": [1, 2.5, null, true]}'
    ;;
  /echo)
    header "content-type: $HEADER_CONTENT_TYPE"
    cat
    ;;
  /inspect) inspect ;;
  /text) printf 'text ✓' ;;
  /binary)
    header "content-type: application/octet-stream"
    for byte in {0..255}; do printf "\\x$(printf %x "$byte")"; done
    ;;
  /empty) ;;
  /status)
    status 418
    header "x-colour: blue"
    printf teapot
    ;;
  /raise)
    echo "the reason ✗" >&2
    return 1
    ;;
  /crash)
    kill -KILL $$ # all of the instance, which takes a moment
    sleep 60
    ;;
  /sleep)
    sleep "$(printf '%d.%03d' $((QUERY[ms] / 1000)) $((QUERY[ms] % 1000)))"
    header "content-type: application/json"
    printf '{"slept":%d}' "${QUERY[ms]}"
    ;;
  /environment)
    header "content-type: application/json"
    if [[ -v GREETING ]]; then
      printf '{"GREETING":%s}' "$(json_string "$GREETING")"
    else
      printf '{"GREETING":null}'
    fi
    ;;
  /log)
    echo "to stdout ✓" >&2
    echo "to stderr" >&2
    log warning "a warning"
    printf logged
    ;;
  /say)
    log warning "${QUERY[word]} before"
    sleep 0.1
    log warning "${QUERY[word]} after"
    printf said
    ;;
  /count)
    count=$(($(cat /tmp/count 2>/dev/null) + 1)) # a request's variables end with it; files in /tmp with the instance
    echo $count >/tmp/count
    header "content-type: application/json"
    printf '{"count":%d}' $count
    ;;
  /stream)
    stream
    echo one
    sleep 0.3
    echo two
    ;;
  /length)
    header "content-type: application/json"
    printf '{"length":%d}' "$(wc -c)"
    ;;
  /large) head -c 5000000 /dev/zero | tr '\0' x ;;
  /split) header $'x-colour: blue\r\nx-other: 1' ;;
  *)
    status 404
    printf 'there is no %s' "$PATH_INFO"
    ;;
  esac
}

inspect() {
  local name comma=
  header "content-type: application/json"
  printf '{"method":"%s","path":%s,"query":{' "$METHOD" "$(json_string "$PATH_INFO")"
  for name in "${!QUERY[@]}"; do
    printf '%s%s:%s' "$comma" "$(json_string "$name")" "$(json_string "${QUERY[$name]}")"
    comma=,
  done
  printf '},"headers":{'
  comma=
  for name in "${!HEADERS[@]}"; do
    printf '%s%s:%s' "$comma" "$(json_string "$name")" "$(json_string "${HEADERS[$name]}")"
    comma=,
  done
  printf '},"length":%d}' "$(wc -c)"
}
