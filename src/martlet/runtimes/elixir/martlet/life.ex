defmodule Martlet.Life do
  @moduledoc "One life: wait for a specification, load the code, say how that went, serve."

  alias Martlet.{Failure, JSON, Loader, Logs, Request, Response, Server}

  @line_bytes 64 * 1024

  def run do
    Logs.install()
    warm()
    :erlang.garbage_collect()
    spec = read_specification()
    System.put_env(spec["environment"])
    File.cd!(spec["code"])
    began = System.monotonic_time()
    function = load(spec["handler"])
    took = System.convert_time_unit(System.monotonic_time() - began, :native, :microsecond)
    server = Server.start(function, spec["max_body"])
    say(%{mode: "handler", load_ms: took / 1000})
    Server.wait(server)
    System.halt(0)
  end

  defp load(handler) do
    Loader.load(handler)
  catch
    # Whatever the code raises, and however it ends.
    kind, reason ->
      failure = Failure.describe(kind, reason, __STACKTRACE__)
      say(%{error: failure})
      System.halt(1)
  end

  # Runs once what every request will run, and the compiler, before there is code.
  defp warm do
    fields = %{"x-request-id" => "0", "host" => "a"}
    request = Request.new(%{method: "POST", target: "/?a=b", fields: fields}, ~s({"a": [1, 2.5]}))
    {:whole, _, _, _} = Response.render(%{path: request.path, json: Request.json(request)})
    [{module, _}] = Code.compile_string("defmodule Martlet.Warm do\n  def handle(_), do: nil\nend")
    :code.purge(module)
    :code.delete(module)
  end

  # Descriptor 0 has one line, or none where nobody needs the cell.
  defp read_specification do
    port = Port.open({:fd, 0, 0}, [:in, :binary, :eof, line: @line_bytes])
    JSON.decode(read_line(port, []))
  end

  defp read_line(port, pieces) do
    receive do
      {^port, {:data, {:noeol, piece}}} -> read_line(port, [pieces, piece])
      {^port, {:data, {:eol, piece}}} -> IO.iodata_to_binary([pieces, piece])
      {^port, :eof} -> System.halt(0)
    end
  end

  defp say(answer) do
    port = Port.open({:fd, 4, 4}, [:out, :binary])
    Port.command(port, [JSON.encode(answer), "\n"])
    Port.close(port)
  end
end
