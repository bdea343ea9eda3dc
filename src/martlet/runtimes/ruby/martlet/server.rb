# Serves a listener: a thread for each connection. The gateway opens as many as requests may run at once.

module Martlet
  class Server
    HEALTH = "/_martlet/health"

    def initialize(handler, concurrency, max_body)
      @handler, @max_body = handler, max_body
      @alone = Mutex.new if concurrency == 1 # probes are answered beside the one request that runs
      @idle = {}.compare_by_identity
      @lock = Mutex.new
      @threads = ThreadGroup.new
    end

    # Serves until SIGTERM, which Ruby raises in the main thread; requests that run then are finished.
    def run(listener)
      loop { @threads.add(Thread.new(listener.accept) { |socket| serve(socket) }) }
    rescue SignalException
      listener.close
      @lock.synchronize do
        @stopping = true
        @idle.each_key { |socket| socket.shutdown(Socket::SHUT_RD) }
      end
      @threads.list.each(&:join)
      exit
    end

    private

    def serve(socket)
      reader = Http1::Reader.new(socket, @max_body)
      while (head = await(reader, socket))
        break unless answer(head, reader.body(head), socket)
      end
    rescue Http1::BadRequest => error
      socket.write(Http1.problem(error)) rescue nil
    rescue Http1::Disconnected
      nil
    ensure
      @lock.synchronize { @idle.delete(socket) }
      socket.close
    end

    # Waits for the next request; nil where there is to be none. What was sent before SIGTERM is still read.
    def await(reader, socket)
      return reader.head if reader.begun?
      @lock.synchronize do
        @idle[socket] = true
        socket.shutdown(Socket::SHUT_RD) if @stopping
      end
      head = reader.head
      @lock.synchronize { @idle.delete(socket) }
      head
    end

    def answer(head, body, socket)
      send = lambda do |data|
        socket.write(data)
      rescue SystemCallError, IOError
        raise Http1::Disconnected
      end
      return internal(head, &send) if head.target.start_with?("/_martlet/")
      @alone ? @alone.synchronize { invoke(head, body, &send) } : invoke(head, body, &send)
    end

    def invoke(head, body, &send)
      Logs.during(head.fields["x-request-id"]) { @handler.call(head, body, &send) }
    end

    def internal(head)
      known = head.method == "GET" && head.target == HEALTH
      document = known ? { status: "ok" } : { error: { type: "NotFound", message: "there is no #{head.target}" } }
      lines = Http1.header_lines("content-type" => JSON_TYPE)
      yield Http1.whole(head, known ? 200 : 404, lines, JSON.generate(document))
      head.keep_alive?
    end
  end
end
