defmodule Martlet.Failure do
  @moduledoc "What people are told when their code raises: their part of the stacktrace, and an answer."

  alias Martlet.{BadJson, Http1, JSON, Text}

  # The longest message that travels in an answer; the log has all of it.
  @message_characters 4096

  @doc "What was raised, thrown or exited with, in words, without the platform's own frames."
  def describe(kind, reason, stacktrace) do
    reason = if kind == :error, do: Exception.normalize(:error, reason, stacktrace), else: reason
    message = kind |> message(reason) |> Text.scrub() |> String.slice(0, @message_characters)
    traceback = kind |> Exception.format(reason, Enum.reject(stacktrace, &ours?/1)) |> Text.scrub()
    %{type: type(kind, reason), message: message, traceback: traceback}
  end

  defp type(:error, exception), do: inspect(exception.__struct__)
  defp type(:throw, _), do: "Throw"
  defp type(:exit, _), do: "Exit"

  defp message(:error, exception), do: Exception.message(exception)
  defp message(:throw, value), do: inspect(value)
  defp message(:exit, reason), do: Exception.format_exit(reason)

  defp ours?(frame), do: frame |> elem(0) |> Atom.to_string() |> String.starts_with?("Elixir.Martlet.")

  @doc "All of the response to a request whose handler failed like this."
  def answer(head, %{type: type, message: message}) do
    if type == inspect(BadJson) do
      problem = %{type: "about:blank", status: 400, code: "bad_json", request_id: head.fields["x-request-id"]}
      problem = Map.merge(problem, %{title: "The request body is not JSON", detail: message})
      whole(head, 400, [{"content-type", "application/problem+json"}], problem)
    else
      headers = [{"content-type", "application/json"}, {"x-martlet-error", String.replace(type, ~r/[^!-~]/, "?")}]
      whole(head, 500, headers, %{type: type, message: message})
    end
  end

  @doc "Whether the log is to have the traceback: what a client has sent wrongly is no error of the function."
  def logged?(%{type: type}), do: type != inspect(BadJson)

  defp whole(head, status, headers, document),
    do: Http1.whole(head, status, Http1.header_lines(headers), JSON.encode(document))
end
