require "logger"

LOGGER = Logger.new($stdout)
$count = 0

def handle(request)
  case request.path
  when "/json" then { hello: "world", unicode: "żółw 🐢", list: [1, 2.5, nil, true] }
  when "/echo" then request.respond(request.body, headers: { "content-type" => request.headers["Content-Type"] })
  when "/inspect"
    { method: request.method, path: request.path, query: request.query, headers: request.headers,
      length: request.body.bytesize }
  when "/text" then "text ✓"
  when "/binary" then (0..255).to_a.pack("C*")
  when "/empty" then nil
  when "/status" then request.respond("teapot", status: 418, headers: { "x-colour" => "blue" })
  when "/raise" then raise "the reason ✗"
  when "/crash" then exit!(3)
  when "/sleep" then rest(request.query["ms"].to_i)
  when "/environment" then { GREETING: ENV["GREETING"] }
  when "/log" then log
  when "/say" then say(request.query["word"])
  when "/count" then { count: $count += 1 }
  when "/stream" then stream
  when "/length" then { length: request.body.bytesize }
  when "/split" then request.respond("", headers: { "x-colour" => "blue\r\nx-other: 1" })
  when "/unmodified" then request.respond("unseen", status: 304)
  when "/break" then break_off
  when "/large" then "x" * 5_000_000
  else request.respond({ error: "there is no #{request.path}" }, status: 404)
  end
end

def rest(milliseconds)
  sleep(milliseconds / 1000.0)
  { slept: milliseconds }
end

def say(word)
  LOGGER.warn("#{word} before")
  sleep(0.1)
  LOGGER.warn("#{word} after")
  "said"
end

def log
  puts "to stdout ✓"
  warn "to stderr"
  LOGGER.warn("a warning")
  "logged"
end

def stream
  Enumerator.new do |pieces|
    pieces << "one\n"
    sleep 0.3
    pieces << "two\n"
  end
end

def break_off
  Enumerator.new do |pieces|
    pieces << "one\n"
    raise "the reason"
  end
end
