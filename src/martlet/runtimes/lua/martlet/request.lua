-- The request as a handler sees it; it is the context of a function of Open Runtimes, too.

local failure = require("martlet.failure")
local json = require("martlet.json")
local open_runtimes = require("martlet.open_runtimes")
local text = require("martlet.text")

local Request = {}
local lazy = {}

function Request.__index(request, name)
  local value = Request[name]
  if value == nil and lazy[name] then
    value = lazy[name](request)
    rawset(request, name, value)
  end
  return value
end

local AnyCase = {
  __index = function(headers, name)
    return type(name) == "string" and rawget(headers, name:lower()) or nil
  end,
}

-- Makes one of a head and a body. `muted`: whether `log` and `error` are to write nothing.
function Request.new(head, body, muted)
  local path, query_string = head.target:match("^([^?]*)%??(.*)$")
  local fields = head.fields
  return setmetatable({
    method = head.method,
    path = text.decoded(path),
    query_string = query_string,
    headers = setmetatable(fields, AnyCase),
    body = body,
    id = fields["x-request-id"],
    function_name = fields["x-faas-function"],
    revision = tonumber(fields["x-faas-revision"]) or fields["x-faas-revision"],
    deadline_ms = tonumber(fields["x-faas-deadline"]),
    muted = muted,
  }, Request)
end

-- The body as a string.
function Request:text()
  return self.body
end

-- The body read as JSON; {} where it is empty. A handler that lets the error pass answers 400.
function Request:json()
  if self.body == "" then
    return {}
  end
  local read, value = pcall(json.decode, self.body)
  if not read then
    failure.raise("BadJson", "the request body is not JSON: " .. tostring(value))
  end
  return value
end

-- Every value of each name of the query.
function lazy.query_params(request)
  local params = {}
  for pair in request.query_string:gsub("+", " "):gmatch("[^&]+") do
    local name, value = pair:match("^([^=]*)=?(.*)$")
    name = text.decoded(name)
    params[name] = params[name] or {}
    table.insert(params[name], text.decoded(value))
  end
  return params
end

-- The first value of each name of the query.
function lazy.query(request)
  local query = {}
  for name, values in pairs(request.query_params) do
    query[name] = values[1]
  end
  return query
end

function lazy.req(request)
  request.context_used = true
  return open_runtimes.req(request)
end

function lazy.res(request)
  request.context_used = true
  return open_runtimes.res
end

function lazy.log(request)
  return open_runtimes.writer(request, "info")
end

function lazy.error(request)
  return open_runtimes.writer(request, "error")
end

return Request
