# The Bash shim: serves a function by the program protocol of docs/design.md, over stdin and stdout.
#
# Each request runs in a subshell with its body on stdin; what that prints is the body of the response. A response goes
# through a file, so that its length is known and any bytes will do; small ones need no further process.

for martlet_part in handler http1 errors worker; do source "${BASH_SOURCE[0]%/*}/$martlet_part.bash"; done

exec 3<&- 5>&1 1>&2 6<&0 0</dev/null # responses to 5, requests from 6; whatever else is printed is log
martlet_work=$(mktemp -d)
trap 'rm -rf "$martlet_work"' EXIT
trap 'exit 0' TERM

martlet_load() {
  cd "$MARTLET_CODE" || return
  martlet_locate "$MARTLET_HANDLER" || return
  if [[ $martlet_function ]]; then
    source "./$martlet_file" || return
    declare -F "$martlet_function" >/dev/null && return
    echo "$martlet_file has no function $martlet_function" >&2
    return 1
  fi
}

# What the file's own `exit` would end is the shim: it is loaded in a subshell first, to be told.
martlet_started=$EPOCHREALTIME
if ! (martlet_load) 2>"$martlet_work/errors"; then
  cat "$martlet_work/errors" >&2
  martlet_message=$(tail -n 1 "$martlet_work/errors")
  printf '{"error":{"type":"LoadError","message":%s,"traceback":%s}}\n' \
    "$(json_string "${martlet_message:-the script ended while it was loaded}")" \
    "$(json_string "$(<"$martlet_work/errors")")" >&4
  exit 1
fi
martlet_load
printf '{"mode":"handler","load_ms":%s}\n' "$(martlet_milliseconds "$martlet_started" "$EPOCHREALTIME")" >&4
exec 4>&-

martlet_watch_errors
martlet_serve || exit
