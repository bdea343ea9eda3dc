# What the function prints, as frames that say which request they belong to and which stream they were written to.

module Martlet
  module Logs
    FRAME = 4096 # bytes a pipe takes without mixing them with another writer's
    LEVELS = { 0 => "debug", 1 => "info", 2 => "warning", 3 => "error", 4 => "critical" }.freeze
    KEY = :martlet_request

    # STDOUT or STDERR whose lines become frames. What has no line end yet waits until it has one or is flushed.
    module Framed
      def write(*parts)
        data = parts.join
        waiting = Logs.unfinished
        *lines, rest = (waiting.delete(self).to_s.b << data.b).split("\n", -1)
        lines.each { |line| Logs.emit(self, Logs.stream || name, line) }
        if rest && rest.bytesize >= FRAME
          Logs.emit(self, Logs.stream || name, rest)
        elsif rest && !rest.empty?
          waiting[self] = rest
        end
        parts.sum { |part| part.to_s.bytesize }
      end

      def flush
        rest = Logs.unfinished.delete(self)
        Logs.emit(self, name, rest) if rest
        self
      end

      def name
        fileno == 1 ? "stdout" : "stderr"
      end
    end

    # Lines that a Logger writes have its level.
    module Levels
      def add(severity, *rest, &block)
        before = Logs.stream
        Logs.stream = LEVELS[severity]
        super
      ensure
        Logs.stream = before
      end
      alias log add
    end

    class << self
      def install
        [STDOUT, STDERR].each do |stream|
          stream.sync = true
          stream.extend(Framed)
        end
        Logger.prepend(Levels)
      end

      # Says that from here on this thread works on that request.
      def during(id)
        Thread.current.thread_variable_set(KEY, id)
        yield
      ensure
        finish
        Thread.current.thread_variable_set(KEY, nil)
      end

      # Ends the lines of this thread: before its response ends, since whoever has that may look for them.
      def finish
        [STDOUT, STDERR].each(&:flush)
      end

      # What this thread has not finished, by stream.
      def unfinished
        Thread.current.thread_variable_get(:martlet_unfinished) ||
          {}.compare_by_identity.tap { |lines| Thread.current.thread_variable_set(:martlet_unfinished, lines) }
      end

      def stream
        Thread.current.thread_variable_get(:martlet_stream)
      end

      def stream=(name)
        Thread.current.thread_variable_set(:martlet_stream, name)
      end

      # Writes text as frames; printing never fails.
      def emit(file, stream, text)
        id = Thread.current.thread_variable_get(KEY)
        head = %(\x1e{"t":#{format("%.3f", Time.now.to_f)},"id":#{JSON.generate(id)},"s":"#{stream}","m":)
        text = text.dup.force_encoding(Encoding::UTF_8).scrub
        pieces(text, FRAME - head.bytesize - 2) { |piece| file.syswrite("#{head}#{piece}}\n") }
      rescue SystemCallError, IOError
        nil
      end

      private

      # Yields the text as JSON, in pieces of at most so many bytes.
      def pieces(text, room)
        loop do
          piece = text[0, room]
          piece = piece[0, piece.size / 2] while (json = JSON.generate(piece)).bytesize > room
          yield json
          text = text[piece.size..]
          break if text.empty?
        end
      end
    end
  end
end
