# The contract of Open Runtimes: `def main(context)` with context.req, context.res, context.log and context.error.

module Martlet
  module OpenRuntimes
    PREFIX = "x-open-runtimes-"
    NO_RETURN = "Return statement missing. return context.res.empty() if no response is expected."
    TIMED_OUT = "Execution timed out."

    # A function that uses its context has returned nothing.
    class NothingReturned < StandardError; end

    # The headers of a request do not allow it to be run, or not for so long.
    class Refused < StandardError; end

    class << self
      attr_accessor :startup # seconds that loading the code took

      # The answer to a request for the runtime itself; nil for those for the function.
      def own(head)
        return unless head.method == "GET"
        case head.target
        when "/__opr/health" then Response.new("OK")
        when "/__opr/timings" then Response.new(format("startup=%.3f\n", startup))
        end
      end
    end

    # What the headers of one request ask for; they are taken out of its head.
    class Terms
      def initialize(head)
        @given = head.fields.select { |name, _| name.start_with?(PREFIX) }
        head.fields.delete_if { |name, _| name.start_with?(PREFIX) }
      end

      # Runs a function as these terms allow it.
      def call(function, request)
        authorise
        request.mute if %w[disabled disable].include?(@given["#{PREFIX}logging"])
        result = limited(@given["#{PREFIX}timeout"]) { function.call(request) }
        raise NothingReturned, NO_RETURN if result.nil? && request.context_used?
        Response.from(result)
      rescue Refused => error
        Logs.emit(STDERR, "error", TIMED_OUT) if error.message == TIMED_OUT
        Response.new(error.message, 500)
      end

      # The id of the log, as a line of every response to a request that has such headers.
      def stamp
        return "" if @given.empty?
        Http1.header_lines("#{PREFIX}log-id" => @given["#{PREFIX}log-id"] || SecureRandom.hex(10))
      end

      private

      def authorise
        secret = ENV.fetch("OPEN_RUNTIMES_SECRET", "")
        return if secret.empty? || @given["#{PREFIX}secret"] == secret
        raise Refused, 'Unauthorized. Provide correct "x-open-runtimes-secret" header.'
      end

      def limited(seconds, &block)
        return yield if seconds.nil?
        unless seconds.match?(/\A[0-9]+\z/) && seconds.to_i.positive?
          raise Refused, 'Header "x-open-runtimes-timeout" must be an integer greater than 0.'
        end
        Timeout.timeout(seconds.to_i, Refused, TIMED_OUT, &block)
      end
    end

    # What stands behind req, res, log and error of a request.
    class Context
      attr_reader :req, :res
      attr_writer :muted

      def initialize(request)
        @req, @res = Req.new(request), Res.new
      end

      def log(*values)
        write("info", values)
      end

      def error(*values)
        write("error", values)
      end

      private

      def write(level, values)
        return if @muted
        text = values.map { |value| value.is_a?(String) ? value : JSON.generate(value) }.join(" ")
        Logs.emit(STDERR, level, text)
      end
    end

    # The request, by the names of Open Runtimes.
    class Req
      def initialize(request)
        @request = request
      end

      def method = @request.method
      def headers = @request.headers
      def path = @request.path
      def query_string = @request.query_string
      def body_text = @request.text
      def body_json = @request.json
      def body_binary = @request.body
      def scheme = headers["x-forwarded-proto"] || "http"
      def host = authority[0]
      def port = authority[1] ? authority[1].to_i : (scheme == "https" ? 443 : 80)

      def url
        shown = authority[1] ? "#{host}:#{port}" : host
        "#{scheme}://#{shown}#{path}#{"?" unless query_string.empty?}#{query_string}"
      end

      # The last value of each name, as it was sent: not decoded; nil where there is not even an equals sign.
      def query
        query_string.split("&").map { |pair| pair.split("=", 2) }.reject { |name, _| name.to_s.empty? }
                    .to_h { |name, value| [name, value] }
      end

      # The body as its content type says: JSON read, text, or bytes.
      def body
        case headers["content-type"].to_s
        when %r{\Aapplication/json} then body_json
        when %r{\Atext/} then body_text
        else body_binary
        end
      end

      private

      def authority
        (headers["x-forwarded-host"] || headers["host"] || "localhost").split(/:(?=\d+\z)/)
      end
    end

    # Makes responses.
    class Res
      def text(body, status = 200, headers = {})
        respond(body.to_s, status, headers, "text/plain")
      end

      def json(value, status = 200, headers = {})
        respond(JSON.generate(value), status, headers, "application/json")
      end

      def binary(bytes, status = 200, headers = {})
        bytes = bytes.pack("C*") if bytes.is_a?(Array)
        respond(bytes, status, headers, "application/octet-stream")
      end

      def empty
        Response.new(nil, 204)
      end

      def redirect(url, status = 301, headers = {})
        Response.new("", status, headers.merge("location" => url))
      end

      private

      def respond(body, status, headers, type)
        headers = headers.transform_keys { |name| name.to_s.downcase }
        type = headers.fetch("content-type", type)
        type += "; charset=utf-8" if type.match?(%r{\A(text/|application/json)}) && !type.include?("charset=")
        Response.new(body, status, headers.merge("content-type" => type))
      end
    end
  end
end
