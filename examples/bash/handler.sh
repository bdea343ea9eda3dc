# Counts the words of the body. The body is stdin, what is printed is the response.

handle() {
  local top=${QUERY[top]:-10}
  if [[ $top == *[!0-9]* ]]; then
    status 400
    echo "top is a number, not '$top'"
    return
  fi
  tr -cs '[:alnum:]' '\n' | tr '[:upper:]' '[:lower:]' | grep . | sort | uniq -c | sort -k1,1nr -k2 | head -n "$top" |
    while read -r count word; do printf '%s %s\n' "$word" "$count"; done
}
