# The Bash shim: serves a function by the program protocol of docs/design.md, with `listen = "assignments"`.
#
# Each request runs in a subshell with its body on stdin; what that prints is the body of the response. Both are files in
# memory, which the warden fills and reads: what a request takes here is little more than its handler.

for martlet_part in handler worker; do source "${BASH_SOURCE[0]%/*}/$martlet_part.bash"; done

exec 3<&- 24>&2 1>&2 # whatever is printed but by handlers is log, which they have as 24
trap 'exit 0' TERM

martlet_load() {
  if [[ $martlet_function ]]; then
    source "./$martlet_file" || return
    declare -F "$martlet_function" >/dev/null && return
    echo "$martlet_file has no function $martlet_function" >&2
    return 1
  fi
}

martlet_milliseconds() {
  local from=${1//[!0-9]/} to=${2//[!0-9]/}
  local micros=$((10#${to:-0} - 10#${from:-0}))
  printf '%d.%03d' $((micros / 1000)) $((micros % 1000))
}

# What the file's own `exit` would end is the shim: it is loaded in a subshell first, to be told.
martlet_started=$EPOCHREALTIME
if ! (cd "$MARTLET_CODE" && martlet_locate "$MARTLET_HANDLER" && martlet_load) 2>&32; then
  martlet_errors=$(</proc/self/fd/32)
  [[ $martlet_errors ]] && printf '%s\n' "$martlet_errors" >&2
  martlet_message=${martlet_errors##*$'\n'}
  printf '{"error":{"type":"LoadError","message":%s,"traceback":%s}}\n' \
    "$(json_string "${martlet_message:-the script ended while it was loaded}")" \
    "$(json_string "$martlet_errors")" >&4
  exit 1
fi
cd "$MARTLET_CODE" && martlet_locate "$MARTLET_HANDLER" && martlet_load
printf '{"mode":"handler","load_ms":%s}\n' "$(martlet_milliseconds "$martlet_started" "$EPOCHREALTIME")" >&4
exec 4>&-

martlet_serve
