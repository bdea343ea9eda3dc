-- What a handler may return, and what becomes of it: a body of any kind, with a status and headers.

local http1 = require("martlet.http1")
local json = require("martlet.json")

local Response = {}
Response.__index = Response

local PIECE_BYTES = 65536

-- Makes one. Raises an error for a bad status or bad headers.
function Response.new(body, status, headers)
  if math.type(status) ~= "integer" or status < 200 or status > 599 then
    error(("%s is not an HTTP status (200 to 599)"):format(status), 0)
  elseif headers ~= nil and type(headers) ~= "table" then
    error("headers must be a table", 0)
  end
  return setmetatable({ body = body, status = status, headers = headers or {} }, Response)
end

-- Turns whatever a handler returned into a response: a response, or a body, a status and headers.
function Response.from(body, status, headers)
  if getmetatable(body) == Response then
    return body
  end
  -- An iterator over a file or a table comes with values that are no status.
  if type(body) == "function" and math.type(status) ~= "integer" then
    status, headers = nil, nil
  end
  return Response.new(body, status or (body == nil and 204 or 200), headers)
end

-- What returns the next piece of a streamed body, nil at its end; nil where the body is whole.
function Response:pieces()
  local body = self.body
  if type(body) == "function" then
    return body
  elseif type(body) == "thread" then
    return function()
      local alive, piece = coroutine.resume(body)
      if alive then
        return piece
      end
      error(debug.traceback(body, piece), 0)
    end
  elseif io.type(body) == "file" then
    return function()
      return body:read(PIECE_BYTES) or (body:close() and nil)
    end
  end
end

-- The content type of a string: text where it is UTF-8.
function Response.type_of(bytes)
  return utf8.len(bytes) and "text/plain; charset=utf-8" or "application/octet-stream"
end

-- The body as bytes, and the content type it has by itself.
function Response:encode()
  local body = self.body
  if body == nil then
    return "", nil
  elseif type(body) == "string" then
    return body, Response.type_of(body)
  end
  return json.encode(body), "application/json"
end

-- The header lines, where the type is the content type unless the handler has named one.
function Response:lines(type)
  local headers = {}
  for name, value in pairs(self.headers) do
    name = tostring(name):lower()
    if not name:find("^x%-open%-runtimes%-") then
      headers[name] = value
    end
  end
  headers["content-type"] = headers["content-type"] or type
  return http1.header_lines(headers)
end

return Response
