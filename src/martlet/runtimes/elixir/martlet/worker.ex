defmodule Martlet.Worker do
  @moduledoc """
  The process of one request: runs the user's function, and says to its connection what to send.

  It sends `{pid, {:whole, status, lines, body}}`, or `{pid, {:start, status, lines}}`, `{pid, {:piece, bytes}}`… and
  `{pid, :end}`, or `{pid, {:failed, failure}}`. To the first and to each piece of a stream the connection answers
  `{:sent, connection}`, or `{:gone, connection}` where nobody needs more.
  """

  alias Martlet.{Failure, Request, Response}

  defmodule Unwanted do
    @moduledoc "Nobody needs more of a stream."
    defexception message: "nobody reads this any more"
  end

  @doc "Starts one, monitored."
  def start(function, head, body) do
    connection = self()
    spawn_monitor(fn -> run(connection, function, head, body) end)
  end

  defp run(connection, function, head, body) do
    Process.group_leader(self(), connection)

    case head |> Request.new(body) |> function.() |> Response.render() do
      {:stream, pieces, start} -> stream(connection, pieces, start)
      whole -> send(connection, {self(), whole})
    end
  catch
    :error, %Unwanted{} -> :ok
    kind, reason -> send(connection, {self(), {:failed, Failure.describe(kind, reason, __STACKTRACE__)}})
  end

  defp stream(connection, pieces, start) do
    started =
      Enum.reduce(pieces, false, fn piece, started ->
        piece = bytes(piece)
        unless started, do: say(connection, start, piece)
        if piece != "", do: say(connection, {:piece, piece})
        true
      end)

    unless started, do: say(connection, start, nil)
    send(connection, {self(), :end})
  end

  defp bytes(piece) when is_list(piece), do: IO.iodata_to_binary(piece)
  defp bytes(piece), do: to_string(piece)

  defp say(connection, start, piece) do
    {status, lines} = start.(piece)
    say(connection, {:start, status, lines})
  end

  defp say(connection, message) do
    send(connection, {self(), message})

    receive do
      {:sent, ^connection} -> :ok
      {:gone, ^connection} -> raise Unwanted
    end
  end
end
