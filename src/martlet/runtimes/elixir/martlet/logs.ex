defmodule Martlet.Logs do
  @moduledoc """
  What the function prints and logs, as frames that say which request they belong to.

  A process writes to its group leader, and those that it starts have the same one: the connection whose request it
  works on. So the leader says which request that is, also for stderr and for `Logger`.
  """

  alias Martlet.{JSON, Text}

  # Bytes a pipe takes without mixing them with another writer's.
  @frame 4096
  # How often a process looks whether its frames are written before it sleeps in between.
  @yields 200
  @levels %{emergency: "critical", alert: "critical", notice: "info"}

  @doc "Makes this process, and those it will start, write frames, and `Logger` and stderr too."
  def install do
    :ets.new(__MODULE__, [:named_table, :public, read_concurrency: true])
    owner = self()

    stdout =
      spawn(fn ->
        :persistent_term.put(__MODULE__, %{port: Port.open({:fd, 2, 2}, [:out, :binary]), leader: self()})
        send(owner, :ready)
        serve("stdout")
      end)

    receive do: (:ready -> :ok)
    Process.group_leader(self(), stdout)
    Process.unregister(:standard_error)
    Process.register(spawn(fn -> serve("stderr") end), :standard_error)
    :logger.set_primary_config(:level, :debug)
    Enum.each(:logger.get_handler_ids(), &:logger.remove_handler/1)
    :ok = :logger.add_handler(__MODULE__, __MODULE__, %{})
  end

  defp serve(level) do
    receive do
      {:io_request, from, _, _} = message ->
        id = from |> Process.info(:group_leader) |> request_of()
        answer(message, fn text -> text |> String.split("\n", trim: true) |> Enum.each(&emit(level, id, &1)) end)
        serve(level)
    end
  end

  defp request_of({:group_leader, leader}), do: request_of(leader)

  defp request_of(leader) do
    case :ets.lookup(__MODULE__, leader) do
      [{_, id}] -> id
      [] -> nil
    end
  end

  @doc "Says that those whose group leader is this process work on that request from here on."
  def begin(id), do: :ets.insert(__MODULE__, {self(), id})

  @doc "Ends what `begin` has said."
  def finish, do: :ets.delete(__MODULE__, self())

  @doc "Gives those that have this process as their group leader another one: it ends."
  def leave do
    leader = :persistent_term.get(__MODULE__).leader
    ours = {:group_leader, self()}
    for pid <- Process.list(), Process.info(pid, :group_leader) == ours, do: Process.group_leader(pid, leader)
  end

  @doc """
  Answers what a process asks of its group leader, once `write` has been called with the text: who prints goes on when it
  is printed. Returns what `write` does.
  """
  def answer({:io_request, from, reply_as, request}, write) do
    {reply, text} = perform(request)
    written = write.(text)
    send(from, {:io_reply, reply_as, reply})
    written
  end

  defp perform({:put_chars, encoding, module, function, arguments}),
    do: perform({:put_chars, encoding, apply(module, function, arguments)})

  # As Latin-1 come bytes, whatever they are.
  defp perform({:put_chars, :latin1, bytes}), do: {:ok, bytes |> IO.iodata_to_binary() |> Text.scrub()}
  defp perform({:put_chars, :unicode, text}), do: {:ok, text |> IO.chardata_to_string() |> Text.scrub()}

  defp perform({:requests, requests}) do
    Enum.reduce(requests, {:ok, ""}, fn request, {_, before} ->
      {reply, text} = perform(request)
      {reply, before <> text}
    end)
  end

  defp perform(:getopts), do: {[binary: true, encoding: :unicode], ""}
  defp perform({:setopts, _}), do: {:ok, ""}
  defp perform({:get_geometry, _}), do: {{:error, :enotsup}, ""}
  defp perform(_), do: {:eof, ""}

  @doc "Writes the lines of a text; returns what has no line end yet."
  def lines(level, id, text) do
    {rest, lines} = text |> String.split("\n") |> List.pop_at(-1)
    Enum.each(lines, &emit(level, id, &1))
    if byte_size(rest) < @frame, do: rest, else: emit(level, id, rest) && ""
  end

  @doc "What `:logger` calls for each event."
  def log(%{level: level, meta: meta} = event, _) do
    unless match?(%{domain: [:otp | _]}, meta) and :logger.compare_levels(level, :warning) == :lt do
      text = event |> :logger_formatter.format(%{template: [:msg], single_line: false}) |> IO.chardata_to_string()
      emit(Map.get(@levels, level, Atom.to_string(level)), request_of(meta.gl), text)
    end
  end

  @doc """
  Waits until what was printed is written. A thread of the runtime writes, after `Port.command` has returned, and whoever
  reads a request's lines must find them once its response is there.
  """
  def flush do
    port = :persistent_term.get(__MODULE__).port
    with {:output, bytes} <- Port.info(port, :output), do: flush(port, bytes, 0)
  end

  # Most often it is a matter of 20 µs.
  defp flush(port, bytes, round) do
    with {:output, taken} <- Port.info(port, :output),
         {:queue_size, queued} when taken - queued < bytes <- Port.info(port, :queue_size) do
      if round < @yields, do: :erlang.yield(), else: Process.sleep(1)
      flush(port, bytes, round + 1)
    end
  end

  @doc "Writes text as frames; printing never fails."
  def emit(level, id, text) do
    seconds = :erlang.float_to_binary(System.os_time(:millisecond) / 1000, decimals: 3)
    head = IO.iodata_to_binary([~s(\x1e{"t":), seconds, ~s(,"id":), JSON.encode(id), ~s(,"s":"), level, ~s(","m":)])
    frames(:persistent_term.get(__MODULE__).port, head, Text.scrub(text))
  rescue
    ArgumentError -> true
  end

  defp frames(port, head, text) do
    {json, rest} = cut(text, min(byte_size(text), @frame), @frame - byte_size(head) - 2)
    Port.command(port, [head, json, "}\n"])
    if rest == "", do: true, else: frames(port, head, rest)
  end

  # The first piece of a text that fits into so many bytes as JSON, and what follows it.
  defp cut(text, size, room) do
    case text do
      <<_::binary-size(size), 0b10::2, _::6, _::binary>> ->
        cut(text, size - 1, room)

      <<piece::binary-size(size), rest::binary>> ->
        json = JSON.encode(piece)
        if IO.iodata_length(json) <= room, do: {json, rest}, else: cut(text, div(size, 2), room)
    end
  end
end
