# The processes that answer requests, one each: copies of the shell that has loaded the code. They are made ahead, so that
# no request waits for a fork, and have slots, which take turns. Of slot 1 the request is 40, stdin 41 and stdout 42.
#
# A worker says `end` (20), with its exit status, once its handler has. Where it cannot, since the handler was killed,
# became another program or took the trap, the warden hears it from the shell, which says `ended` of every worker.

martlet_slots=(0 1 2)

# Serves until no more requests come, and the warden or a worker ends it.
martlet_serve() {
  local slot
  local -a workers
  declare -gA HEADERS QUERY
  martlet_define_start
  for slot in "${martlet_slots[@]}"; do
    "martlet_start_$slot"
    workers[slot]=$!
  done
  while :; do
    for slot in "${martlet_slots[@]}"; do
      wait "${workers[slot]}"
      printf 'ended %d %d\n' "$slot" $? >&20
      "martlet_start_$slot"
      workers[slot]=$!
    done
  done
}

# Defines what starts a worker in each slot, where it has the descriptors of none of the others.
martlet_define_start() {
  local slot other closed
  for slot in "${martlet_slots[@]}"; do
    closed='23>&-'
    for other in "${martlet_slots[@]}"; do
      closed+=" $((31 + 10 * other))<&- $((32 + 10 * other))>&-"
      ((other == slot)) || closed+=" $((30 + 10 * other))<&-"
    done
    eval "martlet_start_$slot() {
      martlet_answer_one $((30 + 10 * slot)) </proc/self/fd/$((31 + 10 * slot)) >&$((32 + 10 * slot)) 2>&23 $closed &
    }"
  done
}

# Answers one request, which comes on this descriptor.
martlet_answer_one() {
  local martlet_requests=$1 martlet_size martlet_script
  IFS= read -r -N 10 -u "$1" martlet_size && IFS= read -r -N "$martlet_size" -u "$1" martlet_script || {
    kill $$ 2>&-
    exit
  }
  eval "$martlet_script"
  trap martlet_end EXIT
  exec {martlet_requests}<&-
  martlet_run
}

martlet_run() {
  if [[ $martlet_function ]]; then
    "$martlet_function"
  else
    source "./$martlet_file"
  fi
}

# What a worker does last.
martlet_end() {
  local martlet_code=$?
  printf 'end %d %d\n' "$martlet_request" "$martlet_code" >&20
  exit "$martlet_code"
}
