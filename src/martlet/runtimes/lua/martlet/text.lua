-- Bytes and characters: strings of Lua are bytes.

local text = {}

-- The bytes as UTF-8; those that are none become U+FFFD.
function text.valid(bytes)
  local _, wrong = utf8.len(bytes)
  if not wrong then
    return bytes
  end
  local parts, at = {}, 1
  while wrong do
    parts[#parts + 1] = bytes:sub(at, wrong - 1)
    at = wrong + 1
    _, wrong = utf8.len(bytes, at)
  end
  parts[#parts + 1] = bytes:sub(at)
  return table.concat(parts, "\u{FFFD}")
end

-- Undoes percent-encoding.
function text.decoded(encoded)
  return (encoded:gsub("%%(%x%x)", function(digits)
    return string.char(tonumber(digits, 16))
  end))
end

return text
