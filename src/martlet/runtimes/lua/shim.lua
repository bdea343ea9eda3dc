-- The Lua shim: serves a function by the program protocol of docs/design.md, one request after the other. Requests come
-- on descriptor 6 and responses go to 5 (runtime.toml says how); stdout and stderr are the log.
--
-- It needs Lua's standard library only.

local path = package.path
package.path = arg[0]:match("^(.*)/[^/]*$") .. "/?.lua;" .. path
local failure = require("martlet.failure")
local handler = require("martlet.handler")
local http1 = require("martlet.http1")
local json = require("martlet.json")
local loader = require("martlet.loader")
local logs = require("martlet.logs")
package.path = path

local requests = assert(io.open("/dev/fd/6", "rb"))
local responses = assert(io.open("/dev/fd/5", "wb"))

local function send(data)
  assert(responses:write(data))
  assert(responses:flush())
end

local function say(answer)
  local answers = assert(io.open("/dev/fd/4", "w"))
  assert(answers:write(json.encode(answer), "\n"))
  answers:close()
end

logs.install()
local started = os.clock()
local loaded, found = failure.call(loader.load, os.getenv("MARTLET_HANDLER"))
if not loaded then
  logs.emit("error", found.traceback)
  say({ error = { type = found.type, message = found.message, traceback = found.traceback } })
  os.exit(1)
end
local seconds = os.clock() - started
say({ mode = "handler", load_ms = 1000 * seconds })

for head, body in http1.requests(requests) do
  logs.request_id = head.fields["x-request-id"]
  handler.answer(found, seconds, head, body, send)
  io.stdout:flush()
end
