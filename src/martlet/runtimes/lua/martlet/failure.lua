-- What people are told when their code raises an error: type, message and traceback.

local text = require("martlet.text")

local failure = {}

local MESSAGE_BYTES = 4096
local Problem = {}

-- Raises an error of a type.
function failure.raise(type, message)
  error(setmetatable({ type = type, message = message }, Problem), 0)
end

-- The traceback without the frames of this runtime, which are the outermost.
local function user_traceback(whole)
  local lines = {}
  for line in debug.traceback(whole, 3):gmatch("[^\n]+") do
    if not line:find("/martlet/%l[%w_]*%.lua:") and not line:find("/shim%.lua:") and not line:find("^\t%[C%]: in %?$") then
      lines[#lines + 1] = line
    end
  end
  return text.valid(table.concat(lines, "\n"))
end

local function describe(raised)
  if getmetatable(raised) == Problem then
    return { type = raised.type, message = raised.message, traceback = raised.message }
  end
  local whole = type(raised) == "table" and raised.message or raised
  whole = tostring(whole)
  local message = whole:gsub("^[^\n:]+:%d+: ", ""):sub(1, MESSAGE_BYTES)
  return { type = "Error", message = text.valid(message), traceback = user_traceback(whole) }
end

-- Calls a function. Returns true with what it returns, or false with what it raised: type, message, traceback.
function failure.call(called, ...)
  return xpcall(called, describe, ...)
end

return failure
