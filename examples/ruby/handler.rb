# Turns a table of CSV into JSON. ?separator=; for the tables of another office.

require "csv"

def handle(request)
  return request.respond({ error: "POST a table" }, status: 405, headers: { "allow" => "POST" }) unless request.method == "POST"

  separator = request.query.fetch("separator", ",")
  CSV.parse(request.text, headers: true, col_sep: separator, converters: :numeric).map(&:to_h)
rescue CSV::MalformedCSVError => error
  request.respond({ error: error.message }, status: 422)
end
