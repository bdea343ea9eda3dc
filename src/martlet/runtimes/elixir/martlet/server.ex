defmodule Martlet.Server do
  @moduledoc "Serves the listener: a process for each connection. The gateway opens as many as requests may run at once."

  alias Martlet.Connection

  @backlog 1024
  @receive 64 * 1024

  @doc "Adopts the listener, descriptor 3, and serves until SIGTERM; requests that run then are finished."
  def start(function, max_body) do
    options = [:binary, :local, fd: 3, active: false, exit_on_close: false, backlog: @backlog, buffer: @receive]
    {:ok, listener} = :gen_tcp.listen(0, options)
    Martlet.Signals.to(self())
    server = self()
    spawn_link(fn -> accept(listener, server, function, max_body) end)
    listener
  end

  @doc "Waits until all has been served that is to be."
  def wait(listener, connections \\ MapSet.new()) do
    receive do
      {:connected, pid} ->
        Process.monitor(pid)
        wait(listener, MapSet.put(connections, pid))

      {:DOWN, _, :process, pid, _} ->
        wait(listener, MapSet.delete(connections, pid))

      :sigterm ->
        :gen_tcp.close(listener)
        finish(connections)
    end
  end

  # The last message of who accepts comes behind those about connections.
  defp finish(connections) do
    receive do
      {:connected, pid} ->
        Process.monitor(pid)
        finish(MapSet.put(connections, pid))

      {:DOWN, _, :process, pid, _} ->
        finish(MapSet.delete(connections, pid))

      :closed ->
        Enum.each(connections, &send(&1, :stop))
        bury(connections)
    end
  end

  defp bury(connections) do
    unless Enum.empty?(connections) do
      receive do: ({:DOWN, _, :process, pid, _} -> connections |> MapSet.delete(pid) |> bury())
    end
  end

  defp accept(listener, server, function, max_body) do
    case :gen_tcp.accept(listener) do
      {:ok, socket} ->
        pid = spawn(fn -> receive do: (:go -> Connection.serve(socket, function, max_body)) end)
        :ok = :gen_tcp.controlling_process(socket, pid)
        send(server, {:connected, pid})
        send(pid, :go)
        accept(listener, server, function, max_body)

      {:error, :closed} ->
        send(server, :closed)

      {:error, _} ->
        accept(listener, server, function, max_body)
    end
  end
end

defmodule Martlet.Signals do
  @moduledoc "SIGTERM as a message, in place of the end of Erlang at once."

  @behaviour :gen_event

  @doc "Sends the process `:sigterm` when the signal comes."
  def to(pid), do: :ok = :gen_event.swap_handler(:erl_signal_server, {:erl_signal_handler, []}, {__MODULE__, pid})

  @impl true
  def init({pid, _}), do: {:ok, pid}

  @impl true
  def handle_event(:sigterm, pid) do
    send(pid, :sigterm)
    {:ok, pid}
  end

  def handle_event(_, pid), do: {:ok, pid}

  @impl true
  def handle_call(_, pid), do: {:ok, :ok, pid}
end
