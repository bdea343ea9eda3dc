-- Fills a template: {{name}} becomes the value of that name in the JSON of the body.

local TEMPLATE = [[
Dear {{name}},

your {{thing}} has arrived after {{days}} days.
]]

return function(request)
  local values = request:json()
  local missing = {}
  local letter = TEMPLATE:gsub("{{(%w+)}}", function(name)
    if values[name] == nil then
      missing[#missing + 1] = name
    end
    return tostring(values[name])
  end)
  if #missing > 0 then
    return { missing = missing }, 422
  end
  return letter
end
