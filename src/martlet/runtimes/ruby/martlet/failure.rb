# What people are told when their code raises: their part of the backtrace, and an answer.

module Martlet
  module Failure
    MESSAGE_CHARACTERS = 4096 # longest message that travels in an answer; the log has all of it
    OURS = File.dirname(__dir__)

    class << self
      # An exception in words, without the platform's own frames.
      def describe(error)
        { type: type(error), message: message(error), traceback: traceback(error) }
      end

      # All of the response to a request whose handler raised. The traceback goes to the log.
      def answer(error, head)
        return bad_json(error, head) if error.is_a?(BadJson)
        failure = describe(error)
        Logs.emit(STDERR, "error", failure[:traceback])
        lines = Http1.header_lines("content-type" => JSON_TYPE, "x-martlet-error" => failure[:type])
        Http1.whole(head, 500, lines, JSON.generate(failure.slice(:type, :message)))
      end

      private

      def type(error)
        (error.class.name || "Error").sub(/\AMartlet::(.*::)?/, "")
      end

      def message(error)
        error.message.to_s.dup.force_encoding(Encoding::UTF_8).scrub[0, MESSAGE_CHARACTERS]
      end

      def traceback(error)
        frames = (error.backtrace || []).reject { |frame| frame.start_with?(OURS) }
        text = ["#{type(error)}: #{message(error)}", *frames.map { |frame| "    from #{frame}" }]
        text << "Caused by #{traceback(error.cause)}" if error.cause
        text.join("\n")
      end

      def bad_json(error, head)
        lines = Http1.header_lines("content-type" => "application/problem+json")
        Http1.whole(head, 400, lines, JSON.generate(
          type: "about:blank", status: 400, code: "bad_json",
          title: "The request body is not JSON", detail: message(error),
          request_id: head.fields["x-request-id"]
        ))
      end
    end
  end
end
