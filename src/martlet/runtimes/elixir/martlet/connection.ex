defmodule Martlet.Connection do
  @moduledoc """
  The process of one connection: reads requests, has each answered by a process of its own, and is what that prints to
  (`Martlet.Logs`).
  """

  alias Martlet.{Failure, Http1, JSON, Logs, Worker}

  @health "/_martlet/health"

  # function, max_body: what is served. buffer: what has come and is not read. stopping: this request is the last.
  # id: of the request that runs. unfinished: the line that it prints and has not ended.
  defstruct [:socket, :function, :max_body, :id, buffer: "", stopping: false, unfinished: ""]

  @doc "Serves a socket that this process owns, until its peer closes it or, once it is told `:stop`, has no request."
  def serve(socket, function, max_body) do
    next(%__MODULE__{socket: socket, function: function, max_body: max_body})
  rescue
    error in Http1.BadRequest -> :gen_tcp.send(socket, Http1.refusal(error))
    Http1.Disconnected -> :ok
  after
    Logs.finish()
    Logs.leave()
    :gen_tcp.close(socket)
  end

  defp next(%{buffer: "", stopping: false, socket: socket} = state) do
    :inet.setopts(socket, active: :once)

    receive do
      {:tcp, ^socket, data} -> request(%{state | buffer: data})
      {:tcp_closed, ^socket} -> :ok
      {:tcp_error, ^socket, _} -> :ok
      {:io_request, _, _, _} = message -> message |> print(state) |> next()
      :stop -> stop(state)
    end
  end

  defp next(%{buffer: "", stopping: true} = state), do: stop(state)
  defp next(state), do: request(state)

  # What was sent before is still read.
  defp stop(%{socket: socket} = state) do
    :inet.setopts(socket, active: false)

    receive do
      {:tcp, ^socket, data} -> request(%{state | buffer: data, stopping: true})
    after
      0 ->
        case :gen_tcp.recv(socket, 0, 0) do
          {:ok, data} -> request(%{state | buffer: data, stopping: true})
          {:error, _} -> :ok
        end
    end
  end

  defp request(%{socket: socket, max_body: max_body} = state) do
    {head, buffer} = Http1.head(socket, state.buffer, max_body)
    {body, buffer} = Http1.body(socket, head, buffer, max_body)
    state = answer(%{state | buffer: buffer}, head, body)
    if Http1.keep_alive?(head), do: next(state), else: :ok
  end

  defp answer(state, %{target: "/_martlet/" <> _} = head, _) do
    {status, document} =
      if head.method == "GET" and head.target == @health,
        do: {200, %{status: "ok"}},
        else: {404, %{error: %{type: "NotFound", message: "there is no #{head.target}"}}}

    lines = Http1.header_lines([{"content-type", "application/json"}])
    transmit(state, Http1.whole(head, status, lines, JSON.encode(document)))
    state
  end

  defp answer(state, head, body) do
    id = head.fields["x-request-id"]
    Logs.begin(id)
    {worker, monitor} = Worker.start(state.function, head, body)
    state = await(%{state | id: id}, head, worker, monitor, false)
    Process.demonitor(monitor, [:flush])
    Logs.finish()
    %{state | id: nil}
  end

  defp print(message, state) do
    rest = Logs.answer(message, fn text -> Logs.lines("stdout", state.id, state.unfinished <> text) end)
    %{state | unfinished: rest}
  end

  # Before the end of a response is sent, since nobody may look at this process after that.
  defp end_lines(state, failure \\ nil) do
    if state.unfinished != "", do: Logs.emit("stdout", state.id, state.unfinished)
    if failure && Failure.logged?(failure), do: Logs.emit("error", state.id, failure.traceback)
    Logs.flush()
    %{state | unfinished: ""}
  end

  # Sends what the worker says. `started`: whether the head of a stream has been sent.
  defp await(state, head, worker, monitor, started) do
    receive do
      {:io_request, _, _, _} = message ->
        message |> print(state) |> await(head, worker, monitor, started)

      :stop ->
        await(%{state | stopping: true}, head, worker, monitor, started)

      {^worker, {:whole, status, lines, body}} ->
        finish(state, Http1.whole(head, status, lines, body))

      {^worker, {:start, status, lines}} when head.method == "HEAD" ->
        state = end_lines(state)
        stream(state, worker, Http1.start_stream(head, status, lines), false)
        state

      {^worker, {:start, status, lines}} ->
        stream(state, worker, Http1.start_stream(head, status, lines), true)
        await(state, head, worker, monitor, true)

      {^worker, {:piece, bytes}} ->
        stream(state, worker, Http1.piece(head, bytes), true)
        await(state, head, worker, monitor, true)

      {^worker, :end} ->
        finish(state, Http1.piece(head, ""))

      {^worker, {:failed, failure}} ->
        failed(state, head, failure, started)

      {:DOWN, ^monitor, :process, ^worker, reason} ->
        failed(state, head, Failure.describe(:exit, reason, []), started)
    end
  end

  defp failed(state, head, failure, started) do
    state = end_lines(state, failure)
    # A response that has begun is cut short, so that the client sees that it is not whole.
    if started, do: raise(Http1.Disconnected)
    finish(state, Failure.answer(head, failure))
  end

  defp finish(state, data) do
    state = end_lines(state)
    transmit(state, data)
    state
  end

  defp stream(state, worker, data, more) do
    sent = :gen_tcp.send(state.socket, data)
    send(worker, {if(more and sent == :ok, do: :sent, else: :gone), self()})
    if sent != :ok, do: raise(Http1.Disconnected)
  end

  defp transmit(state, data) do
    if :gen_tcp.send(state.socket, data) != :ok, do: raise(Http1.Disconnected)
  end
end
