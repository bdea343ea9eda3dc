# Finds the user's function: which file to load, and which method in it to call.

module Martlet
  # The code has no such handler.
  class HandlerNotFound < StandardError; end

  module Loader
    FILES = %w[handler.rb main.rb lib/main.rb src/main.rb function.rb index.rb app.rb].freeze
    METHODS = %w[handle handler main].freeze

    class << self
      # Makes the process the function's own, loads its code, and returns what to call with a request.
      def load(spec)
        Dir.chdir(spec["code"])
        ENV.update("MARTLET_FUNCTION" => spec["function"], "MARTLET_REVISION" => spec["revision"].to_s)
        ENV.update(spec["environment"])
        $LOAD_PATH.unshift(spec["code"], File.join(spec["code"], "lib"))
        gems = File.join(spec["code"], "vendor/bundle/bundler/setup.rb")
        require gems if File.file?(gems)
        file, names = locate(spec["handler"])
        $PROGRAM_NAME = file
        require File.join(spec["code"], file)
        names.each { |name| (found = find(name)) and return found }
        raise HandlerNotFound, "#{file} has no method #{names.join(", ")} (def #{names.first}(request))"
      end

      private

      # `handle`, `file`, `file.rb`, `file:method`, `file.method`, `Module.method`.
      def locate(handler)
        return [usual_file, METHODS] if handler == "handle"
        [handler, "#{handler}.rb"].each { |path| return [path, METHODS] if path.end_with?(".rb") && File.file?(path) }
        [handler.partition(":"), handler.rpartition(".")].each do |file, _, name|
          [file, "#{file}.rb"].each { |path| return [path, [name]] if path.end_with?(".rb") && File.file?(path) }
        end
        [usual_file, [handler]]
      end

      def usual_file
        found = FILES.find { |path| File.file?(path) } || (Dir["*.rb"] if Dir["*.rb"].one?)&.first
        found or raise HandlerNotFound, "there is none of #{FILES.join(", ")}; name the file in `handler`"
      end

      def find(name)
        owner, _, method = name.rpartition(".")
        receiver = owner.empty? ? TOPLEVEL_BINDING.receiver : Object.const_get(owner)
        receiver.method(method) if receiver.respond_to?(method, true)
      end
    end
  end
end
