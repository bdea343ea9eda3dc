defmodule Parcels do
  alias Martlet.Request

  def handle(%{method: "POST"} = request) do
    numbers = Request.json(request)
    lookups = Enum.map(numbers, fn number -> {number, Task.async(fn -> check(number) end)} end)
    Map.new(lookups, fn {number, task} -> {number, Task.await(task)} end)
  end

  def handle(_), do: {405, %{"allow" => "POST"}, %{error: "send a list of numbers"}}

  # The last digit is the sum of those before it, modulo 7.
  defp check(number) do
    {digits, [check]} = number |> to_charlist() |> Enum.map(&List.to_integer([&1])) |> Enum.split(-1)
    if rem(Enum.sum(digits), 7) == check, do: "valid", else: "mistyped"
  rescue
    ArgumentError -> "no number"
  end
end
