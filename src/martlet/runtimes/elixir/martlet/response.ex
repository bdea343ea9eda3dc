defmodule Martlet.Response do
  @moduledoc "What a handler may return, and what becomes of it: a body of any kind, with a status and headers."

  alias Martlet.{Http1, JSON}

  @text "text/plain; charset=utf-8"
  @bytes "application/octet-stream"
  @json "application/json"

  @doc """
  Turns whatever a handler has returned into `{:whole, status, lines, body}`, or into
  `{:stream, pieces, start}`, where `start` makes status and lines from the first piece (nil: there is none).
  Raises what says why it cannot be sent.
  """
  def render({status, body}) when is_integer(status), do: render({status, [], body})

  def render({status, headers, body}) when is_integer(status) do
    unless status in 200..599, do: raise(ArgumentError, "#{status} is not an HTTP status (200 to 599)")

    unless is_map(headers) or (is_list(headers) and Enum.all?(headers, &match?({_, _}, &1))),
      do: raise(ArgumentError, "headers must be a map or a list of pairs, not #{inspect(headers)}")

    if streamed?(body) do
      {:stream, body, &{status, lines(headers, &1 && type_of(&1))}}
    else
      {type, bytes} = encode(body)
      {:whole, status, lines(headers, type), bytes}
    end
  end

  def render(nothing) when nothing in [nil, :ok], do: render({204, [], nil})
  def render(body), do: render({200, [], body})

  defp streamed?(body) when is_function(body, 2), do: true
  defp streamed?(%module{}), do: module in [Stream, File.Stream, IO.Stream]
  defp streamed?(_), do: false

  defp encode(nil), do: {nil, ""}
  defp encode(body) when is_binary(body), do: {type_of(body), body}
  defp encode(body), do: {@json, body |> JSON.encode() |> IO.iodata_to_binary()}

  # A string is text where it is UTF-8, else bytes.
  defp type_of(bytes), do: if(String.valid?(bytes), do: @text, else: @bytes)

  defp lines(headers, type) do
    named = Enum.any?(headers, fn {name, _} -> name |> to_string() |> String.downcase() == "content-type" end)

    if named or type == nil,
      do: Http1.header_lines(headers),
      else: [Http1.header_lines(headers), "content-type: ", type, "\r\n"]
  end
end
