-- JSON (RFC 8259). Functions may require this module: `local json = require("martlet.json")`.

local text = require("martlet.text")

local json = {}

local MAX_DEPTH = 512

-- What `null` is: nil cannot be kept in a table.
json.null = setmetatable({}, {
  __name = "null",
  __tostring = function()
    return "null"
  end,
})

local List = { __name = "list" }

-- Marks a table as a list, which an empty one is not by itself.
function json.array(list)
  return setmetatable(list or {}, List)
end

local ESCAPES = { ['"'] = '\\"', ["\\"] = "\\\\", ["\n"] = "\\n", ["\r"] = "\\r", ["\t"] = "\\t" }

local function quoted(string)
  return '"' .. text.valid(string):gsub('[%c"\\]', function(character)
    return ESCAPES[character] or ("\\u%04x"):format(character:byte())
  end) .. '"'
end

local function number(value)
  if value ~= value or value == math.huge or value == -math.huge then
    error(("%s cannot be written as JSON"):format(value), 0)
  end
  if math.type(value) == "integer" then
    return ("%d"):format(value)
  end
  local short = ("%.14g"):format(value)
  return tonumber(short) == value and short or ("%.17g"):format(value)
end

local function is_list(value)
  if getmetatable(value) == List then
    return true
  end
  local count = 0
  for key in pairs(value) do
    if math.type(key) ~= "integer" then
      return false
    end
    count = count + 1
  end
  return count > 0 and count == #value
end

local write

local function members(value, depth)
  local parts = {}
  if is_list(value) then
    for index = 1, #value do
      parts[index] = write(value[index], depth)
    end
    return "[" .. table.concat(parts, ",") .. "]"
  end
  for key, member in pairs(value) do
    if type(key) ~= "string" then
      error("a table is neither a list without holes nor has it only names; json.null may stand for nil", 0)
    end
    parts[#parts + 1] = quoted(key) .. ":" .. write(member, depth)
  end
  return "{" .. table.concat(parts, ",") .. "}"
end

function write(value, depth)
  local kind = type(value)
  if kind == "string" then
    return quoted(value)
  elseif kind == "number" then
    return number(value)
  elseif kind == "boolean" then
    return tostring(value)
  elseif kind == "nil" or value == json.null then
    return "null"
  elseif kind ~= "table" then
    error(("a %s cannot be written as JSON"):format(kind), 0)
  elseif depth == MAX_DEPTH then
    error("a table holds itself, or others too deeply, to be written as JSON", 0)
  end
  return members(value, depth + 1)
end

-- Writes a value as JSON. Raises an error for what JSON has no form for.
function json.encode(value)
  return write(value, 0)
end

local read

local function fail(source, at, why)
  local found = source:sub(at, at)
  error(("%s at byte %d"):format(found == "" and "the end came too early" or why, at), 0)
end

local function skip(source, at)
  return source:find("[^ \t\r\n]", at) or #source + 1
end

local UNESCAPES = { b = "\b", f = "\f", n = "\n", r = "\r", t = "\t", ['"'] = '"', ["\\"] = "\\", ["/"] = "/" }

-- The character of an escape \uXXXX, or of two that are one character in UTF-16, and what follows it.
local function unicode(source, at)
  local code = tonumber(source:match("^%x%x%x%x", at) or fail(source, at, "not four hexadecimal digits"), 16)
  at = at + 4
  if code >= 0xD800 and code < 0xDC00 then
    local low = tonumber(source:match("^\\u(%x%x%x%x)", at) or "0", 16)
    if low >= 0xDC00 and low < 0xE000 then
      return utf8.char(0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00)), at + 6
    end
  end
  return utf8.char((code >= 0xD800 and code < 0xE000) and 0xFFFD or code), at
end

local function read_string(source, at)
  local parts = {}
  while true do
    local plain, stop = source:match('^([^%c"\\]*)()', at)
    parts[#parts + 1] = plain
    local character = source:sub(stop, stop)
    if character == '"' then
      return table.concat(parts), stop + 1
    elseif character == "\127" then -- a control character to Lua, not to JSON
      parts[#parts + 1], at = character, stop + 1
    elseif character ~= "\\" then
      fail(source, stop, "a control character in a string")
    elseif source:sub(stop + 1, stop + 1) == "u" then
      parts[#parts + 1], at = unicode(source, stop + 2)
    else
      parts[#parts + 1] = UNESCAPES[source:sub(stop + 1, stop + 1)] or fail(source, stop + 1, "no such escape")
      at = stop + 2
    end
  end
end

local function read_number(source, at)
  local whole, fraction = source:match("^(-?%d+)(%.?%d*)", at)
  if not whole or whole:find("^-?0%d") or fraction == "." then
    fail(source, at, "not a value")
  end
  local exponent = source:match("^[eE][+-]?%d+", at + #whole + #fraction) or ""
  return tonumber(whole .. fraction .. exponent), at + #whole + #fraction + #exponent
end

-- Reads what is between two brackets: `one` reads a member, and returns what follows it.
local function read_members(source, at, close, one)
  at = skip(source, at + 1)
  if source:sub(at, at) == close then
    return at + 1
  end
  while true do
    at = skip(source, one(at))
    local character = source:sub(at, at)
    if character == close then
      return at + 1
    elseif character ~= "," then
      fail(source, at, "neither , nor " .. close)
    end
    at = skip(source, at + 1)
  end
end

local function read_list(source, at, depth)
  local list = json.array()
  return list, read_members(source, at, "]", function(from)
    local value, following = read(source, from, depth)
    list[#list + 1] = value
    return following
  end)
end

local function read_object(source, at, depth)
  local object = {}
  return object, read_members(source, at, "}", function(from)
    if source:sub(from, from) ~= '"' then
      fail(source, from, "not a name")
    end
    local name, following = read_string(source, from + 1)
    following = skip(source, following)
    if source:sub(following, following) ~= ":" then
      fail(source, following, "not a :")
    end
    object[name], following = read(source, skip(source, following + 1), depth)
    return following
  end)
end

local WORDS = { t = { "true", true }, f = { "false", false }, n = { "null", json.null } }

function read(source, at, depth)
  local first = source:sub(at, at)
  if depth == MAX_DEPTH then
    fail(source, at, "nested too deeply")
  elseif first == "{" then
    return read_object(source, at, depth + 1)
  elseif first == "[" then
    return read_list(source, at, depth + 1)
  elseif first == '"' then
    return read_string(source, at + 1)
  end
  local word = WORDS[first]
  if word and source:sub(at, at + #word[1] - 1) == word[1] then
    return word[2], at + #word[1]
  end
  return read_number(source, at)
end

-- Reads JSON; null is `json.null`. Raises an error that says where it is none.
function json.decode(source)
  local value, at = read(source, skip(source, 1), 0)
  at = skip(source, at)
  if at <= #source then
    fail(source, at, "more than one value")
  end
  return value
end

return json
