defmodule Martlet.BadJson do
  @moduledoc "The request's body is not JSON. A handler that lets it pass answers 400."
  defexception [:message]
end

defmodule Martlet.Request do
  @moduledoc "The request as a handler sees it."

  alias Martlet.{BadJson, JSON, Text}

  defstruct [
    :method,
    :path,
    :query_string,
    :query,
    :query_params,
    :headers,
    :body,
    :id,
    :function,
    :revision,
    :deadline_ms,
    :arrived
  ]

  @doc false
  def new(%{method: method, target: target, fields: fields}, body) do
    {path, query_string} =
      case :binary.split(target, "?") do
        [path, query_string] -> {path, query_string}
        [path] -> {path, ""}
      end

    params = params(query_string)

    %__MODULE__{
      method: method,
      path: path |> Text.of_head() |> Text.decode(),
      query_string: Text.of_head(query_string),
      query: Map.new(params, fn {name, [first | _]} -> {name, first} end),
      query_params: params,
      headers: fields,
      body: body,
      id: fields["x-request-id"],
      function: fields["x-faas-function"],
      revision: fields["x-faas-revision"],
      deadline_ms: milliseconds(fields["x-faas-deadline"]),
      arrived: System.monotonic_time(:millisecond)
    }
  end

  # Every value of each name of the query.
  defp params(query_string) do
    pairs = for pair <- :binary.split(query_string, "&", [:global]), pair != "", do: pair(pair)
    Enum.group_by(pairs, &elem(&1, 0), &elem(&1, 1))
  end

  defp pair(text) do
    case text |> String.replace("+", " ") |> :binary.split("=") do
      [name, value] -> {Text.decode(name), Text.decode(value)}
      [name] -> {Text.decode(name), ""}
    end
  end

  defp milliseconds(nil), do: nil

  defp milliseconds(text) do
    case Integer.parse(text) do
      {number, _} -> number
      :error -> nil
    end
  end

  @doc "The header of a name in any case; `nil` where there is none."
  def header(%__MODULE__{headers: headers}, name), do: headers[String.downcase(name, :ascii)]

  @doc "The body as text, in UTF-8; bytes that are none become U+FFFD."
  def text(%__MODULE__{body: body}), do: Text.scrub(body)

  @doc "The body read as JSON; `%{}` where it is empty. Raises `Martlet.BadJson`."
  def json(%__MODULE__{body: ""}), do: %{}

  def json(%__MODULE__{body: body}) do
    JSON.decode(body)
  rescue
    error in JSON.Error -> raise BadJson, "the request body is not JSON: #{error.message}"
  end

  @doc "Milliseconds that are left of `deadline_ms` now."
  def remaining_ms(%__MODULE__{deadline_ms: nil}), do: nil

  def remaining_ms(%__MODULE__{deadline_ms: given, arrived: arrived}),
    do: given - (System.monotonic_time(:millisecond) - arrived)
end
