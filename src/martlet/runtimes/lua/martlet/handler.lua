-- Answers a request with what the user's function returns for it.

local failure = require("martlet.failure")
local http1 = require("martlet.http1")
local json = require("martlet.json")
local logs = require("martlet.logs")
local open_runtimes = require("martlet.open_runtimes")
local Request = require("martlet.request")
local Response = require("martlet.response")

local handler = {}

-- All of the response to a request whose handler raised an error. The traceback goes to the log.
local function failed(head, stamp, problem)
  if problem.type == "TimedOut" then
    logs.emit("error", problem.message)
    return http1.whole(head, 500, stamp .. Response.new(nil, 500):lines("text/plain; charset=utf-8"), problem.message)
  elseif problem.type == "BadJson" then
    local lines = http1.header_lines({ ["content-type"] = "application/problem+json" })
    return http1.whole(head, 400, stamp .. lines, json.encode({
      type = "about:blank",
      status = 400,
      code = "bad_json",
      title = "The request body is not JSON",
      detail = problem.message,
      request_id = head.fields["x-request-id"],
    }))
  end
  logs.emit("error", problem.traceback)
  local lines = http1.header_lines({ ["content-type"] = "application/json", ["x-martlet-error"] = problem.type })
  return http1.whole(head, 500, stamp .. lines, json.encode({ type = problem.type, message = problem.message }))
end

-- Sends the pieces as they come; the first is known already.
local function stream(head, response, stamp, piece, pieces, send)
  send(http1.start(response.status, stamp .. response:lines(piece and Response.type_of(piece))))
  if head.method == "HEAD" then
    return
  end
  local done, problem = failure.call(function()
    while piece ~= nil do
      if piece ~= "" then
        send(http1.chunk(piece))
      end
      piece = pieces()
    end
  end)
  if not done then
    -- The response was cut short, which nothing else can tell.
    logs.emit("error", problem.traceback)
    os.exit(1)
  end
  io.stdout:flush() -- before the response ends: whoever has that may look for what was printed
  send(http1.chunk(""))
end

-- Answers one request by giving `send` bytes. `seconds`: how long the code took to load.
function handler.answer(called, seconds, head, body, send)
  local terms = open_runtimes.terms(head)
  local stamp = open_runtimes.stamp(terms)
  local muted = terms.logging == "disabled" or terms.logging == "disable"
  local data
  local done, problem = failure.call(function()
    local response = open_runtimes.own(head, seconds)
      or open_runtimes.refusal(terms)
      or open_runtimes.call(terms, called, Request.new(head, body, muted))
    local pieces = response:pieces()
    if pieces then
      stream(head, response, stamp, pieces(), pieces, send)
      return
    end
    local bytes, type = response:encode()
    data = http1.whole(head, response.status, stamp .. response:lines(type), bytes)
  end)
  debug.sethook()
  if not done then
    data = failed(head, stamp, problem)
  end
  if data then
    io.stdout:flush()
    send(data)
  end
end

return handler
