# HTTP/1.1 of one connection: requests are read from a socket, and responses become bytes (RFC 9112).

module Martlet
  module Http1
    MAX_HEAD = 64 * 1024 # bytes of request line and headers together; the gateway's own limit is lower
    RECEIVE = 64 * 1024

    TOKEN = "[!#$%&'*+\\-.^_`|~0-9A-Za-z]+"
    REQUEST_LINE = Regexp.new("\\A(#{TOKEN}) (/[!-~\\x80-\\xff]*|\\*) HTTP/1\\.([01])\\z", Regexp::NOENCODING)
    FIELD = Regexp.new("\\A(#{TOKEN}):[ \\t]*([^\\r\\n\\0]*?)[ \\t]*\\z", Regexp::NOENCODING)
    CHUNK_SIZE = /\A(\h{1,8})[ \t]*(?:;.*)?\z/n
    OUR_FIELDS = %w[connection content-length keep-alive transfer-encoding].freeze

    # The peer sent what is not acceptable HTTP; the connection cannot go on.
    class BadRequest < StandardError
      attr_reader :status

      def initialize(message, status = 400)
        super(message)
        @status = status
      end
    end

    # The peer went away before the request or the response was complete.
    class Disconnected < StandardError; end

    # Request line and headers. `length` is the bytes of the body, or nil where it is chunked.
    class Head
      attr_reader :method, :target, :fields, :length

      def initialize(data)
        line, *lines = data.split("\r\n")
        match = REQUEST_LINE.match(line) or raise BadRequest, "this is not an HTTP/1.1 request"
        @method, @target = match[1], match[2]
        @minor = match[3] == "1" ? 1 : 0
        @fields = read_fields(lines)
        @length = read_length
      end

      def chunks?
        @minor == 1
      end

      def keep_alive?
        @minor == 1 && !@fields.fetch("connection", "").downcase.include?("close")
      end

      private

      def read_fields(lines)
        lines.each_with_object({}) do |line, fields|
          match = FIELD.match(line) or raise BadRequest, "a header is malformed"
          name, value = match[1].downcase, Http1.text(match[2])
          known = fields[name]
          fields[name] = known ? [known, value].join(name == "cookie" ? "; " : ", ") : value
        end
      end

      def read_length
        length, coding = @fields.values_at("content-length", "transfer-encoding")
        if coding
          if length || coding.downcase != "chunked"
            raise BadRequest, "a body must either have a content-length or be chunked"
          end
          return nil
        end
        return 0 unless length
        raise BadRequest, "content-length must be a number of bytes" unless length.match?(/\A\d{1,15}\z/)
        length.to_i
      end
    end

    # Reads requests from a socket, however their bytes are cut.
    class Reader
      def initialize(socket, max_body)
        @socket = socket
        @max_body = max_body
        @buffer = String.new(capacity: RECEIVE, encoding: Encoding::BINARY)
      end

      # Whether the peer has sent a part of a further request.
      def begun?
        !@buffer.empty?
      end

      # Returns the next head; nil where the peer has closed.
      def head
        until (stop = @buffer.index("\r\n\r\n"))
          raise BadRequest.new("the request's headers are too large", 431) if @buffer.bytesize > MAX_HEAD
          return nil unless receive
        end
        raise BadRequest.new("the request's headers are too large", 431) if stop > MAX_HEAD
        head = Head.new(@buffer.slice!(0, stop + 4))
        raise too_large if head.length && head.length > @max_body
        head
      end

      def body(head)
        return chunks unless head.length
        need(head.length)
        @buffer.slice!(0, head.length)
      end

      private

      def chunks
        body = String.new(encoding: Encoding::BINARY)
        loop do
          size = CHUNK_SIZE.match(line) or raise BadRequest, "a chunk does not begin with its size"
          size = size[1].hex
          break if size.zero?
          raise too_large if body.bytesize + size > @max_body
          need(size + 2)
          body << @buffer.slice!(0, size)
          raise BadRequest, "a chunk is longer than its size says" unless @buffer.slice!(0, 2) == "\r\n"
        end
        nil until line.empty? # trailers mean nothing to a function
        body
      end

      def line
        until (stop = @buffer.index("\r\n"))
          raise BadRequest, "a line between chunks is too long" if @buffer.bytesize > MAX_HEAD
          receive or raise Disconnected
        end
        @buffer.slice!(0, stop + 2).chomp!("\r\n")
      end

      def need(size)
        (receive or raise Disconnected) while @buffer.bytesize < size
      end

      def receive
        @buffer << @socket.readpartial(RECEIVE)
      rescue EOFError, SystemCallError, IOError
        nil
      end

      def too_large
        BadRequest.new("the request body is over #{@max_body} bytes", 413)
      end
    end

    class << self
      # Reads bytes of a head as text: UTF-8 where they are that, else Latin-1.
      def text(bytes)
        text = bytes.dup.force_encoding(Encoding::UTF_8)
        text.valid_encoding? ? text : bytes.dup.force_encoding(Encoding::ISO_8859_1).encode(Encoding::UTF_8)
      end

      # Writes headers as they stand on the wire. Those that frame the body are left out.
      # Raises ArgumentError: a name or value would end its line.
      def header_lines(headers)
        headers.flat_map { |name, value| Array(value).map { |one| header_line(name.to_s.downcase, one.to_s) } }.join
      end

      # All of a response whose body is known. `lines` come from `header_lines`.
      def whole(head, status, lines, body)
        bare = [204, 304].include?(status)
        lines += "content-length: #{body.bytesize}\r\n" unless bare
        start(head, status, lines, head.keep_alive?) << (bare || head.method == "HEAD" ? "" : body)
      end

      # The head of a response. Where its body is streamed and cannot be chunked, closing the connection ends it.
      def start(head, status, lines, keep_alive)
        close = keep_alive ? "" : "connection: close\r\n"
        String.new("HTTP/1.1 #{status} #{REASONS.fetch(status, "Unknown")}\r\n#{lines}#{close}\r\n").b
      end

      def chunk(piece)
        "#{piece.bytesize.to_s(16)}\r\n".b << piece.b << "\r\n"
      end

      # The response to a malformed request.
      def problem(error)
        "HTTP/1.1 #{error.status} #{REASONS.fetch(error.status)}\r\ncontent-type: text/plain\r\nconnection: close\r\n" \
          "content-length: #{error.message.bytesize}\r\n\r\n#{error.message}"
      end

      private

      def header_line(name, value)
        return "" if OUR_FIELDS.include?(name)
        line = "#{name}: #{value}".b
        FIELD.match?(line) or raise ArgumentError, "#{name.inspect}: #{value.inspect} cannot be sent as a header"
        line << "\r\n"
      end
    end

    REASONS = {
      200 => "OK", 201 => "Created", 202 => "Accepted", 203 => "Non-Authoritative Information", 204 => "No Content",
      206 => "Partial Content", 300 => "Multiple Choices", 301 => "Moved Permanently", 302 => "Found",
      303 => "See Other", 304 => "Not Modified", 307 => "Temporary Redirect", 308 => "Permanent Redirect",
      400 => "Bad Request", 401 => "Unauthorized", 403 => "Forbidden", 404 => "Not Found",
      405 => "Method Not Allowed", 409 => "Conflict", 410 => "Gone", 413 => "Content Too Large",
      415 => "Unsupported Media Type", 418 => "I'm a Teapot", 422 => "Unprocessable Content",
      429 => "Too Many Requests", 431 => "Request Header Fields Too Large", 500 => "Internal Server Error",
      501 => "Not Implemented", 502 => "Bad Gateway", 503 => "Service Unavailable", 504 => "Gateway Timeout"
    }.freeze
  end
end
