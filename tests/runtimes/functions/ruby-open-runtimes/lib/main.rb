def main(context)
  req, res = context.req, context.res
  case req.path
  when "/text" then res.text("text ✓")
  when "/json" then res.json({ hello: "world", unicode: "żółw 🐢" })
  when "/binary" then res.binary((0..255).to_a)
  when "/empty" then res.empty
  when "/redirect" then res.redirect("/target")
  when "/request" then res.json(described(req))
  when "/body" then res.json(req.body_json)
  when "/log"
    context.log("info line")
    context.error("error line")
    res.text("logged")
  when "/nothing" then nil
  when "/raise" then raise "the reason ✗"
  end
end

def described(req)
  { method: req.method, url: req.url, scheme: req.scheme, host: req.host, port: req.port, path: req.path,
    query: req.query, queryString: req.query_string, headers: req.headers, bodyText: req.body_text }
end
