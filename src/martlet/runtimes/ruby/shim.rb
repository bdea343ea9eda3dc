# The Ruby shim: serves a function by the program protocol of docs/design.md, on descriptors 3 (a listening socket) and 4.
#
# It needs Ruby's standard library only. Everything is loaded before there is code, and once the code is there, its
# folder, environment and gems are set up before the first line of it runs.

require "json"
require "logger"
require "securerandom"
require "socket"
require "timeout"
require_relative "martlet/failure"
require_relative "martlet/handler"
require_relative "martlet/http1"
require_relative "martlet/loader"
require_relative "martlet/logs"
require_relative "martlet/open_runtimes"
require_relative "martlet/request"
require_relative "martlet/response"
require_relative "martlet/server"

module Martlet
  # One life: wait for a specification, load the code, say how that went, serve.
  def self.run
    listener = UNIXServer.for_fd(3)
    answers = IO.for_fd(4, "w")
    line = $stdin.gets or exit
    spec = JSON.parse(line)
    $stdin.reopen(File::NULL)
    Logs.install
    begin
      started = Process.clock_gettime(Process::CLOCK_MONOTONIC)
      function = Loader.load(spec)
      OpenRuntimes.startup = Process.clock_gettime(Process::CLOCK_MONOTONIC) - started
    rescue Exception => error # whatever the code raises, and however it ends
      answers.write(JSON.generate(error: Failure.describe(error)), "\n")
      exit!(1)
    end
    answers.write(JSON.generate(mode: "handler", load_ms: (OpenRuntimes.startup * 1000).round(3)), "\n")
    answers.close
    Server.new(Handler.new(function), spec["concurrency"], spec["max_body"]).run(listener)
  end

  # Runs once what every request will run, before there is code.
  def self.warm
    function = ->(request) { { "path" => request.path, "query" => request.query, "json" => request.json } }
    head = Http1::Head.new("POST /?a=b HTTP/1.1\r\nx-request-id: 0\r\n")
    Handler.new(function).call(head, "{}") { |bytes| bytes }
  end
end

Martlet.warm
Martlet.run
