# The processes that answer requests, one each: copies of the shell that has loaded the code. The next one is made while
# one waits or runs, so that no request waits for a fork; the two take turns, each with files of its own.
#
# A worker sends its answer itself. Where it cannot, since the handler was killed, became another program or took the
# trap, the shell does once the worker has ended.

# Serves until no more requests come. Fails where a response was cut short, which nothing else can tell.
martlet_serve() {
  local worker next code turn=0
  mkfifo "$martlet_work/turns0" "$martlet_work/turns1" || return
  exec 10<>"$martlet_work/turns0" 11<>"$martlet_work/turns1"
  printf . >&10
  martlet_start_worker 0
  worker=$!
  while :; do
    martlet_start_worker $((1 - turn))
    next=$!
    wait "$worker"
    code=$?
    martlet_slot=$martlet_work/$turn
    [[ -s $martlet_slot.method ]] || return 0
    martlet_settle "$code" || return
    worker=$next turn=$((1 - turn))
  done
}

martlet_start_worker() {
  martlet_slot=$martlet_work/$1
  martlet_answer_one $((10 + $1)) $((11 - $1)) &
}

# Answers one request: the first that comes after its turn has, which it reads on one descriptor, and lets the next
# worker know on the other. Its files are made before there is one.
martlet_answer_one() {
  : >"$martlet_slot.method" >"$martlet_slot.status" >"$martlet_slot.headers" >"$martlet_slot.begun"
  exec >"$martlet_slot.output"
  declare -gA HEADERS QUERY
  read -r -N 1 -u "$1"
  if martlet_read_request; then
    printf . >&"$2"
    printf '%s' "$METHOD" >"$martlet_slot.method"
    trap martlet_end EXIT
    exec 6<&- 10<&- 11<&- <"$martlet_body" 2>&8
    martlet_run
  else
    printf . >&"$2"
  fi
}

martlet_run() {
  if [[ $martlet_function ]]; then
    "$martlet_function"
  else
    source "./$martlet_file"
  fi
}

# What a worker does last, whatever options the handler has set.
martlet_end() {
  local code=$?
  trap - DEBUG ERR
  set +euf
  if [[ ${martlet_sender:-} ]]; then
    exec >&-
    wait "$martlet_sender"
  elif ((code == 0)) && [[ ! -s $martlet_slot.begun ]]; then
    martlet_respond 0
  fi
  exit "$code"
}

# Does what a worker that has ended with this exit status has left.
martlet_settle() {
  local begun METHOD
  IFS= read -r begun <"$martlet_slot.begun"
  IFS= read -r METHOD <"$martlet_slot.method"
  case $begun in
  sent) return "$1" ;;
  streamed)
    martlet_ask_for_error
    martlet_hear_error
    (($1 == 0)) || return 1
    [[ $METHOD == HEAD ]] || printf '0\r\n\r\n' >&5
    ;;
  *) martlet_respond "$1" ;;
  esac
}

# Sends the answer of a handler that has ended with this exit status.
martlet_respond() {
  martlet_ask_for_error
  if (($1)); then
    martlet_hear_error
    martlet_fail "$1" "${martlet_message:-the handler ended with exit status $1}"
  else
    martlet_read_answer
    if [[ -z $martlet_status && ! -s $martlet_slot.output ]]; then
      martlet_status=204
    fi
    martlet_send "${martlet_status:-200}" "$martlet_lines" "$martlet_slot.output"
  fi
}

# Reads what the handler has said with `status` and `header`.
martlet_read_answer() {
  martlet_status= martlet_lines=
  [[ -s $martlet_slot.status ]] && IFS= read -r martlet_status <"$martlet_slot.status"
  [[ -s $martlet_slot.headers ]] && IFS= read -r -d '' martlet_lines <"$martlet_slot.headers"
  if [[ $'\n'$martlet_lines != *$'\ncontent-type:'* ]]; then
    martlet_lines+=$'content-type: text/plain; charset=utf-8\r\n'
  fi
}

martlet_fail() {
  local quoted
  martlet_quote quoted "$2"
  printf '{"type":"ExitStatus%d","message":%s}' "$1" "$quoted" >"$martlet_slot.output"
  martlet_send 500 $'content-type: application/json\r\nx-martlet-error: ExitStatus'"$1"$'\r\n' "$martlet_slot.output"
}
