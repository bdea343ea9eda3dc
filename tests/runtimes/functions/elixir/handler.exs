defmodule Contract do
  require Logger

  alias Martlet.Request

  {:ok, _} = Agent.start(fn -> 0 end, name: Contract.Count)

  def handle(%{path: "/json"}), do: %{hello: "world", unicode: "żółw 🐢", list: [1, 2.5, nil, true]}

  def handle(%{path: "/echo"} = request),
    do: {200, %{"content-type" => Request.header(request, "Content-Type")}, request.body}

  def handle(%{path: "/inspect"} = request) do
    request |> Map.take([:method, :path, :query, :headers]) |> Map.put(:length, byte_size(request.body))
  end

  def handle(%{path: "/text"}), do: "text ✓"
  def handle(%{path: "/binary"}), do: for(byte <- 0..255, into: <<>>, do: <<byte>>)
  def handle(%{path: "/empty"}), do: nil
  def handle(%{path: "/status"}), do: {418, [{"x-colour", "blue"}], "teapot"}
  def handle(%{path: "/raise"}), do: raise("the reason ✗")
  def handle(%{path: "/crash"}), do: System.halt(3)

  def handle(%{path: "/sleep"} = request) do
    milliseconds = String.to_integer(request.query["ms"])
    Process.sleep(milliseconds)
    %{slept: milliseconds}
  end

  def handle(%{path: "/environment"}), do: %{GREETING: System.get_env("GREETING")}

  def handle(%{path: "/say"} = request) do
    Logger.warning(request.query["word"] <> " before")
    Process.sleep(100)
    Logger.warning(request.query["word"] <> " after")
    "said"
  end

  def handle(%{path: "/log"}) do
    IO.puts("to stdout ✓")
    IO.puts(:stderr, "to stderr")
    Logger.warning("a warning")
    "logged"
  end

  def handle(%{path: "/count"}), do: %{count: Agent.get_and_update(Contract.Count, &{&1 + 1, &1 + 1})}

  def handle(%{path: "/stream"}) do
    Stream.map(["one\n", "two\n"], fn piece ->
      if piece == "two\n", do: Process.sleep(300)
      piece
    end)
  end

  def handle(%{path: "/length"} = request), do: %{length: byte_size(request.body)}
  def handle(%{path: "/split"}), do: {200, [{"x-colour", "blue\r\nx-other: 1"}], ""}
  def handle(%{path: "/unmodified"}), do: {304, "unseen"}

  def handle(%{path: "/break"}) do
    Stream.map(["one\n", nil], fn piece -> piece || raise("the reason") end)
  end

  def handle(%{path: "/large"}), do: String.duplicate("x", 5_000_000)
  def handle(%{path: path}), do: {404, %{error: "there is no #{path}"}}
end
