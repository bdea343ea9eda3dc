# What a handler may return, and what becomes of it.

module Martlet
  JSON_TYPE = "application/json"
  TEXT_TYPE = "text/plain; charset=utf-8"
  BYTES_TYPE = "application/octet-stream"

  # A body of any kind, with a status and headers.
  class Response
    attr_reader :body, :status, :headers

    def initialize(body, status = 200, headers = {})
      @body, @status, @headers = body, status, headers
    end

    # Turns whatever a handler returned into a response.
    def self.from(value)
      return value if value.is_a?(Response)
      new(value, value.nil? ? 204 : 200)
    end

    def streamed?
      @body.is_a?(Enumerator) || @body.is_a?(IO)
    end

    # The parts of a streamed body, as they come.
    def each_piece(&block)
      return @body.each(&block) unless @body.is_a?(IO)
      begin
        while (piece = @body.read(64 * 1024))
          yield piece
        end
      ensure
        @body.close
      end
    end

    # The body as bytes, and the content type it has by itself.
    def encode
      case @body
      when nil then ["", nil]
      when String then [@body, Response.type_of(@body)]
      when Struct then [JSON.generate(@body.to_h), JSON_TYPE]
      else [JSON.generate(@body), JSON_TYPE]
      end
    end

    # The header lines, where `type` is the content type unless the handler has named one.
    # Raises ArgumentError: the status or a header cannot be sent.
    def lines(type)
      unless @status.is_a?(Integer) && @status.between?(200, 599)
        raise ArgumentError, "#{@status.inspect} is not an HTTP status (200 to 599)"
      end
      headers = @headers.to_h { |name, value| [name.to_s.downcase, value] }
      headers.delete_if { |name, _| name.start_with?(OpenRuntimes::PREFIX) }
      headers["content-type"] ||= type if type
      Http1.header_lines(headers)
    end

    # A string is text, or bytes where its encoding is binary.
    def self.type_of(text)
      text.encoding == Encoding::BINARY ? BYTES_TYPE : TEXT_TYPE
    end
  end
end
