-- The contract of Open Runtimes: context.req, context.res, context.log and context.error.

local failure = require("martlet.failure")
local http1 = require("martlet.http1")
local json = require("martlet.json")
local logs = require("martlet.logs")
local Response = require("martlet.response")

local open_runtimes = {}

local NO_RETURN = "Return statement missing. return context.res.empty() if no response is expected."
local TIMED_OUT = "Execution timed out."
local HOOK_INSTRUCTIONS = 10000

-- The answer to a request for the runtime itself; nil for those for the function.
function open_runtimes.own(head, seconds)
  if head.method == "GET" and head.target == "/__opr/health" then
    return Response.new("OK", 200)
  elseif head.method == "GET" and head.target == "/__opr/timings" then
    return Response.new(("startup=%.3f\n"):format(seconds), 200)
  end
end

-- Takes the headers of the contract out of a head; returns what they ask for.
function open_runtimes.terms(head)
  local terms = {}
  for name, value in pairs(head.fields) do
    local term = name:match("^x%-open%-runtimes%-(.*)$")
    if term then
      terms[term] = value
      head.fields[name] = nil
    end
  end
  return terms
end

-- The id of the log, as a line of every response to a request that has such headers.
function open_runtimes.stamp(terms)
  if next(terms) == nil then
    return ""
  end
  local id = terms["log-id"] or ("%016x"):format(math.random(0))
  return http1.header_lines({ ["x-open-runtimes-log-id"] = id })
end

-- Why a request may not be answered by the function, as a response; nil where it may.
function open_runtimes.refusal(terms)
  local secret = os.getenv("OPEN_RUNTIMES_SECRET") or ""
  if secret ~= "" and terms.secret ~= secret then
    return Response.new('Unauthorized. Provide correct "x-open-runtimes-secret" header.', 500)
  elseif terms.timeout and not terms.timeout:find("^0*[1-9]%d*$") then
    return Response.new('Header "x-open-runtimes-timeout" must be an integer greater than 0.', 500)
  end
end

-- Calls a function and returns its response. Raises what that raises, and where it takes longer than the terms allow.
function open_runtimes.call(terms, called, request)
  local timeout, began = tonumber(terms.timeout), os.time()
  -- Lua's clock has whole seconds: it is late rather than early.
  local function check()
    if os.time() - began > timeout then
      failure.raise("TimedOut", TIMED_OUT)
    end
  end
  if not timeout then
    check = function() end
  else
    debug.sethook(check, "", HOOK_INSTRUCTIONS)
  end
  local body, status, headers = called(request)
  debug.sethook()
  check()
  if body == nil and request.context_used then
    failure.raise("NothingReturned", NO_RETURN)
  end
  return Response.from(body, status, headers)
end

-- Returns what writes lines of a level to the log.
function open_runtimes.writer(request, level)
  return function(...)
    if not request.muted then
      logs.write(level, ...)
    end
  end
end

-- The last value of each name, as it was sent: not decoded.
local function query(query_string)
  local values = {}
  for pair in query_string:gmatch("[^&]+") do
    local name, value = pair:match("^([^=]+)=?(.*)$")
    if name then
      values[name] = value
    end
  end
  return values
end

-- The body as its content type says: JSON read, or bytes.
local function body(request)
  local type = request.headers["content-type"] or ""
  return type:find("^application/json") and request:json() or request.body
end

local derived = {
  bodyJson = function(request)
    return request:json()
  end,
  body = body,
}

-- The request, by the names of Open Runtimes.
function open_runtimes.req(request)
  local headers = request.headers
  local scheme = headers["x-forwarded-proto"] or "http"
  local authority = headers["x-forwarded-host"] or headers.host or "localhost"
  local host, port = authority:match("^(.*):(%d+)$")
  local query_string = request.query_string
  return setmetatable({
    method = request.method,
    scheme = scheme,
    host = host or authority,
    port = tonumber(port) or (scheme == "https" and 443 or 80),
    path = request.path,
    query = query(query_string),
    queryString = query_string,
    url = scheme .. "://" .. authority .. request.path .. (query_string == "" and "" or "?" .. query_string),
    headers = headers,
    bodyText = request.body,
    bodyBinary = request.body,
  }, {
    __index = function(_, name)
      return derived[name] and derived[name](request)
    end,
  })
end

local function respond(type)
  return function(content, status, headers)
    local all = {}
    for name, value in pairs(headers or {}) do
      all[tostring(name):lower()] = value
    end
    local full = all["content-type"] or type
    if (full:find("^text/") or full:find("^application/json")) and not full:find("charset=", 1, true) then
      full = full .. "; charset=utf-8"
    end
    all["content-type"] = full
    return Response.new(content, status or 200, all)
  end
end

local text = respond("text/plain")
local document = respond("application/json")

-- Makes responses.
open_runtimes.res = {
  binary = respond("application/octet-stream"),
  text = function(content, status, headers)
    return text(tostring(content), status, headers)
  end,
  json = function(value, status, headers)
    return document(json.encode(value), status, headers)
  end,
  empty = function()
    return Response.new(nil, 204)
  end,
  redirect = function(url, status, headers)
    local all = { location = url }
    for name, value in pairs(headers or {}) do
      all[name] = value
    end
    return Response.new("", status or 301, all)
  end,
}

return open_runtimes
