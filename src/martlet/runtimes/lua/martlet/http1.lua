-- Requests and responses on the pipes of the shim (RFC 9112): each body of a request has a content-length.

local http1 = {}

local OURS = { connection = true, ["content-length"] = true, ["keep-alive"] = true, ["transfer-encoding"] = true }

local function read_head(file)
  local first = file:read("L")
  if not first then
    return nil
  end
  local method, target = first:match("^(%S+) (%S+)")
  local fields = {}
  for line in file:lines("L") do
    local name, value = line:match("^([^:]+):[ \t]*(.-)[ \t]*\r\n$")
    if not name then
      break
    end
    fields[name:lower()] = value
  end
  return { method = method, target = target, fields = fields }
end

-- Returns an iterator over the requests that a file has: head (method, target, fields by lower-case name) and body.
function http1.requests(file)
  return function()
    local head = read_head(file)
    if head then
      local length = tonumber(head.fields["content-length"])
      return head, length > 0 and file:read(length) or ""
    end
  end
end

-- Writes headers as they stand on the wire, a list as several. Those that frame the body are left out.
-- Raises an error where a name or value would end its line.
function http1.header_lines(headers)
  local lines = {}
  for name, values in pairs(headers) do
    for _, value in ipairs(type(values) == "table" and values or { values }) do
      value = tostring(value)
      if not name:find("^[%w!#$%%&'*+.^_`|~-]+$") or value:find("[\r\n\0]") then
        error(("%q: this cannot be sent as a header"):format(name), 0)
      end
      if not OURS[name:lower()] then
        lines[#lines + 1] = name:lower() .. ": " .. value .. "\r\n"
      end
    end
  end
  return table.concat(lines)
end

-- All of a response whose body is known.
function http1.whole(head, status, lines, body)
  local bare = status == 204 or status == 304
  local length = bare and "" or ("content-length: %d\r\n"):format(#body)
  local start = ("HTTP/1.1 %d \r\n"):format(status) .. lines .. length .. "\r\n"
  return (bare or head.method == "HEAD") and start or start .. body
end

-- The head of a response whose body comes in chunks.
function http1.start(status, lines)
  return ("HTTP/1.1 %d \r\n"):format(status) .. lines .. "transfer-encoding: chunked\r\n\r\n"
end

-- A piece of such a body; an empty one ends it.
function http1.chunk(piece)
  piece = tostring(piece)
  return ("%x\r\n"):format(#piece) .. piece .. "\r\n"
end

return http1
