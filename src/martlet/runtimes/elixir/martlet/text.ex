defmodule Martlet.Text do
  @moduledoc "Bytes and characters."

  @doc "The bytes as UTF-8; those that are none become U+FFFD."
  def scrub(bytes) do
    if String.valid?(bytes), do: bytes, else: bytes |> valid_pieces([]) |> IO.iodata_to_binary()
  end

  defp valid_pieces(bytes, pieces) do
    case :unicode.characters_to_binary(bytes) do
      {:error, good, <<_, rest::binary>>} -> valid_pieces(rest, [pieces, good, "\uFFFD"])
      {:incomplete, good, _} -> [pieces, good, "\uFFFD"]
      good -> [pieces, good]
    end
  end

  @doc "What came in a head: UTF-8 where it is that, else Latin-1."
  def of_head(bytes) do
    if String.valid?(bytes), do: bytes, else: :unicode.characters_to_binary(bytes, :latin1)
  end

  @doc "Undoes percent-encoding; what is no UTF-8 then becomes U+FFFD."
  def decode(text) do
    case :binary.match(text, "%") do
      :nomatch -> scrub(text)
      _ -> text |> undo(<<>>) |> scrub()
    end
  end

  defp undo(<<"%", high, low, rest::binary>>, done) do
    case Base.decode16(<<high, low>>, case: :mixed) do
      {:ok, byte} -> undo(rest, done <> byte)
      :error -> undo(<<high, low, rest::binary>>, done <> "%")
    end
  end

  defp undo(<<byte, rest::binary>>, done), do: undo(rest, <<done::binary, byte>>)
  defp undo(<<>>, done), do: done
end
