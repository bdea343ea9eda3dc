-- What the function prints, as frames that say which request they belong to.

local json = require("martlet.json")
local text = require("martlet.text")

local logs = { request_id = nil }

local FRAME = 4096 -- bytes a pipe takes without mixing them with another writer's

-- The first piece of a text that fits into so many bytes as JSON, and what follows it.
local function cut(message, room)
  local size = math.min(#message, room)
  while true do
    while size < #message and message:byte(size + 1) & 0xC0 == 0x80 do
      size = size - 1
    end
    local piece = json.encode(message:sub(1, size))
    if #piece <= room then
      return piece, message:sub(size + 1)
    end
    size = size // 2
  end
end

-- Writes a message with a level: `stdout`, `stderr`, `info`, `warning`, `error` and so on.
function logs.emit(level, message)
  message = text.valid(message)
  -- Lua's clock has whole seconds; what is out of time gets the node's.
  local head = ('\x1e{"t":0,"id":%s,"s":"%s","m":'):format(json.encode(logs.request_id), level)
  local piece
  repeat
    piece, message = cut(message, FRAME - #head - 2)
    io.stderr:write(head .. piece .. "}\n")
  until message == ""
end

local function joined(separator, ...)
  local parts = table.pack(...)
  for index = 1, parts.n do
    parts[index] = tostring(parts[index])
  end
  return table.concat(parts, separator)
end

-- Makes `print` and `warn` write frames. What is written to files goes to the log as plain lines.
function logs.install()
  io.stdout:setvbuf("line")
  function print(...)
    logs.emit("stdout", joined("\t", ...))
  end
  function warn(...)
    logs.emit("warning", joined("", ...))
  end
end

-- Writes a line of the log; tables are written as JSON.
function logs.write(level, ...)
  local parts = table.pack(...)
  for index = 1, parts.n do
    if type(parts[index]) == "table" and not (getmetatable(parts[index]) or {}).__tostring then
      parts[index] = json.encode(parts[index])
    end
  end
  logs.emit(level, joined(" ", table.unpack(parts, 1, parts.n)))
end

return logs
