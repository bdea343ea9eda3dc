# Answers a request with what the user's function returns for it.

module Martlet
  class Handler
    def initialize(function)
      @function = function
    end

    # Answers one request by yielding bytes to send. Returns whether the connection may go on.
    def call(head, body, &send)
      terms = OpenRuntimes::Terms.new(head)
      send = stamped(terms.stamp, &send) unless terms.stamp.empty?
      begin
        response = OpenRuntimes.own(head) || terms.call(@function, Request.new(head, body))
        return stream(head, response, &send) if response.streamed?
        bytes, type = response.encode
        data = Http1.whole(head, response.status, response.lines(type), bytes)
      rescue Http1::Disconnected
        raise
      rescue Exception => error # `exit` too: what ends a script is an error of a function
        data = Failure.answer(error, head)
      end
      Logs.finish
      send.call(data)
      head.keep_alive?
    end

    private

    # Sends with a further line in the head of the response.
    def stamped(line)
      lambda do |data|
        data = data.sub("\r\n", "\r\n#{line}") if line
        line = nil
        yield data
      end
    end

    # Sends the pieces as they come. What raises before the first one still becomes a 500.
    def stream(head, response)
      started = false
      keep_alive = head.chunks? && head.keep_alive?
      response.each_piece do |piece|
        piece = piece.to_s
        yield begin_stream(head, response, Response.type_of(piece), keep_alive) unless started
        started = true
        break if head.method == "HEAD"
        yield(head.chunks? ? Http1.chunk(piece) : piece) unless piece.empty?
      end
      yield begin_stream(head, response, nil, keep_alive) unless started
      Logs.finish
      yield "0\r\n\r\n" if head.chunks? && head.method != "HEAD"
      keep_alive
    rescue Http1::Disconnected
      false
    rescue Exception => error
      raise unless started
      Logs.emit(STDERR, "error", Failure.describe(error)[:traceback])
      false
    end

    def begin_stream(head, response, type, keep_alive)
      coding = head.chunks? ? "transfer-encoding: chunked\r\n" : ""
      Http1.start(head, response.status, response.lines(type) + coding, keep_alive)
    end
  end
end
