# The request as a handler sees it.

module Martlet
  # The request's body is not JSON. A handler that lets it pass answers 400.
  class BadJson < StandardError; end

  # Headers by name, in lower case; looked up in any case.
  class Headers < Hash
    def [](name)
      super(name.downcase)
    end

    def key?(name)
      super(name.downcase)
    end
  end

  # One request. It also carries what a function of Open Runtimes expects of its context: req, res, log and error.
  class Request
    attr_reader :method, :path, :query_string, :headers, :body

    def initialize(head, body)
      @arrived = Process.clock_gettime(Process::CLOCK_MONOTONIC)
      @method = head.method
      path, _, @query_string = head.target.partition("?")
      @path = Http1.text(path).include?("%") ? Request.decode(path) : Http1.text(path)
      @headers = Headers.new.merge!(head.fields)
      @body = body
    end

    # Every value of each name of the query: {"a" => ["1", "2"]}.
    def query_params
      @query_params ||= @query_string.split("&").each_with_object({}) do |pair, params|
        next if pair.empty?
        name, _, value = pair.tr("+", " ").partition("=")
        (params[Request.decode(name)] ||= []) << Request.decode(value)
      end
    end

    # The first value of each name of the query.
    def query
      @query ||= query_params.transform_values(&:first)
    end

    # The body as text, in UTF-8; bytes that are none become U+FFFD.
    def text
      @body.dup.force_encoding(Encoding::UTF_8).scrub
    end

    # The body read as JSON; {} where it is empty.
    def json
      return {} if @body.empty?
      begin
        JSON.parse(@body.dup.force_encoding(Encoding::UTF_8))
      rescue JSON::ParserError, EncodingError => error
        raise BadJson, "the request body is not JSON: #{error.message}"
      end
    end

    def id
      @headers["x-request-id"]
    end

    def function
      @headers["x-faas-function"]
    end

    def revision
      @headers["x-faas-revision"]
    end

    # Milliseconds the request had when it arrived.
    def deadline_ms
      @headers["x-faas-deadline"]&.to_i
    end

    # Milliseconds that are left of them now.
    def remaining_ms
      deadline_ms && (deadline_ms - ((Process.clock_gettime(Process::CLOCK_MONOTONIC) - @arrived) * 1000))
    end

    # A response with a status and headers; a header whose value is an array is sent several times.
    def respond(body = nil, status: 200, headers: {})
      Response.new(body, status, headers)
    end

    def req
      @context_used = true
      context.req
    end

    def res
      @context_used = true
      context.res
    end

    def log(*values) = context.log(*values)
    def error(*values) = context.error(*values)

    # Whether the handler has treated the request as the context of Open Runtimes.
    def context_used?
      @context_used
    end

    # Drops what goes to `log` and `error` from here on.
    def mute
      context.muted = true
    end

    def inspect
      "#<Request #{@method} #{@path}>"
    end

    # Undoes percent-encoding; what is no UTF-8 then becomes U+FFFD.
    def self.decode(text)
      text.b.gsub(/%(\h\h)/) { $1.hex.chr }.force_encoding(Encoding::UTF_8).scrub
    end

    private

    def context
      @context ||= OpenRuntimes::Context.new(self)
    end
  end
end
