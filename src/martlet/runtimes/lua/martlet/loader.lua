-- Finds the user's function: which file to load, and what in it to call.

local failure = require("martlet.failure")

local loader = {}

local FILES = { "handler.lua", "main.lua", "src/main.lua", "function.lua", "index.lua", "app.lua" }
local NAMES = { "handle", "handler", "main" }

local function exists(path)
  local file = io.open(path)
  return file ~= nil and file:close()
end

local function usual_file()
  for _, path in ipairs(FILES) do
    if exists(path) then
      return path
    end
  end
  local listing <close> = io.popen("ls -d -- *.lua 2>/dev/null")
  local first, second = listing:read("l", "l")
  if not first or second then
    failure.raise("LoadError", "there is none of " .. table.concat(FILES, ", ") .. "; name the file in 'handler'")
  end
  return first
end

-- `handle`, `file`, `file.lua`, `file:function`, `file.function`, `function`.
local function locate(handler)
  if handler == "handle" then
    return usual_file(), NAMES
  end
  local spellings = { { handler, NAMES } }
  for _, pattern in ipairs({ "^([^:]+):(.+)$", "^(.+)%.([^.]+)$" }) do
    local file, name = handler:match(pattern)
    spellings[#spellings + 1] = { file, { name } }
  end
  for _, spelling in ipairs(spellings) do
    for _, file in ipairs({ spelling[1], spelling[1] and spelling[1] .. ".lua" }) do
      if file:find("%.lua$") and exists(file) then
        return file, spelling[2]
      end
    end
  end
  return usual_file(), { handler }
end

-- Loads the user's code and returns what to call with a request. Raises an error where there is nothing.
function loader.load(handler)
  package.path = "./?.lua;./?/init.lua;./lib/?.lua;./lua_modules/share/lua/5.4/?.lua;./lua_modules/share/lua/5.4/?/init.lua;"
    .. package.path
  package.cpath = "./?.so;./lua_modules/lib/lua/5.4/?.so;" .. package.cpath
  local file, names = locate(handler)
  local chunk = assert(loadfile(file))
  local returned = chunk()
  if type(returned) == "function" then
    return returned
  end
  for _, name in ipairs(names) do
    local found = type(returned) == "table" and returned[name] or _G[name]
    if type(found) == "function" then
      return found
    end
  end
  failure.raise("LoadError", file .. " has no function " .. names[1] .. ", and returns none")
end

return loader
