local json = require("martlet.json")

local count = 0
local routes = {}

routes["/json"] = function()
  return { hello = "world", unicode = "żółw 🐢", list = { 1, 2.5, json.null, true } }
end

routes["/echo"] = function(request)
  return request.body, 200, { ["content-type"] = request.headers["Content-Type"] }
end

routes["/inspect"] = function(request)
  return {
    method = request.method,
    path = request.path,
    query = request.query,
    headers = request.headers,
    length = #request.body,
  }
end

routes["/text"] = function()
  return "text ✓"
end

routes["/binary"] = function()
  local bytes = {}
  for byte = 0, 255 do
    bytes[#bytes + 1] = string.char(byte)
  end
  return table.concat(bytes)
end

routes["/empty"] = function() end

routes["/status"] = function()
  return "teapot", 418, { ["x-colour"] = "blue" }
end

routes["/raise"] = function()
  error("the reason ✗")
end

routes["/crash"] = function()
  os.exit(3)
end

routes["/sleep"] = function(request)
  local ms = math.tointeger(request.query.ms)
  os.execute("sleep " .. ms / 1000)
  return { slept = ms }
end

routes["/environment"] = function()
  return { GREETING = os.getenv("GREETING") or json.null }
end

routes["/say"] = function(request)
  warn(request.query.word .. " before")
  os.execute("sleep 0.1")
  warn(request.query.word .. " after")
  return "said"
end

routes["/log"] = function()
  print("to stdout ✓")
  io.stderr:write("to stderr\n")
  warn("a warning")
  return "logged"
end

routes["/count"] = function()
  count = count + 1
  return { count = count }
end

routes["/stream"] = function()
  return coroutine.wrap(function()
    coroutine.yield("one\n")
    os.execute("sleep 0.3")
    coroutine.yield("two\n")
  end)
end

routes["/length"] = function(request)
  return { length = #request.body }
end

routes["/large"] = function()
  return ("x"):rep(5000000)
end

return function(request)
  local route = routes[request.path]
  if not route then
    return { error = "there is no " .. request.path }, 404
  end
  return route(request)
end
