local function bytes()
  local all = {}
  for byte = 0, 255 do
    all[#all + 1] = string.char(byte)
  end
  return table.concat(all)
end

function main(context)
  local req, res = context.req, context.res
  if req.path == "/text" then
    return res.text("text ✓")
  elseif req.path == "/json" then
    return res.json({ hello = "world", unicode = "żółw 🐢" })
  elseif req.path == "/binary" then
    return res.binary(bytes())
  elseif req.path == "/empty" then
    return res.empty()
  elseif req.path == "/redirect" then
    return res.redirect("/target")
  elseif req.path == "/request" then
    local seen = {}
    for _, name in ipairs({ "method", "url", "scheme", "host", "port", "path", "query", "queryString", "headers", "bodyText" }) do
      seen[name] = req[name]
    end
    return res.json(seen)
  elseif req.path == "/body" then
    return res.json(req.bodyJson)
  elseif req.path == "/log" then
    context.log("info line")
    context.error("error line")
    return res.text("logged")
  elseif req.path == "/raise" then
    error("the reason ✗")
  end
end
