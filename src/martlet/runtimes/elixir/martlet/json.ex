defmodule Martlet.JSON do
  @moduledoc """
  JSON (RFC 8259). Objects are maps with strings as keys, null is `nil`.
  """

  defmodule Error do
    @moduledoc "What was to be read is not JSON, or what was to be written cannot be that."
    defexception [:message]
  end

  @max_depth 1000
  @max_digits 1000

  @doc "Writes a value as JSON, as iodata. Raises `Martlet.JSON.Error`."
  def encode(nil), do: "null"
  def encode(true), do: "true"
  def encode(false), do: "false"
  def encode(atom) when is_atom(atom), do: encode(Atom.to_string(atom))
  def encode(text) when is_binary(text), do: [?", escape(text, text, 0, 0), ?"]
  def encode(number) when is_integer(number), do: Integer.to_string(number)
  def encode(number) when is_float(number), do: Float.to_string(number)
  def encode([]), do: "[]"
  def encode([first | rest]), do: [?[, encode(first), list(rest)]
  def encode(%module{} = struct), do: encode_struct(module, struct)
  def encode(map) when map == %{}, do: "{}"

  def encode(map) when is_map(map) do
    [[_ | first] | rest] = for {name, value} <- map, do: [?,, key(name), ?:, encode(value)]
    [?{, first, rest, ?}]
  end

  def encode(other), do: raise(Error, "#{inspect(other)} cannot be written as JSON")

  defp encode_struct(module, struct) when module in [Date, DateTime, NaiveDateTime, Time],
    do: [?", module.to_iso8601(struct), ?"]

  defp encode_struct(module, struct) do
    case Enumerable.impl_for(struct) do
      nil -> struct |> Map.from_struct() |> encode()
      _ when module in [MapSet, Range] -> struct |> Enum.to_list() |> encode()
      _ -> raise Error, "#{inspect(struct)} cannot be written as JSON"
    end
  end

  defp list([]), do: "]"
  defp list([value | rest]), do: [?,, encode(value) | list(rest)]
  defp list(tail), do: raise(Error, "a list that ends with #{inspect(tail)} cannot be written as JSON")

  defp key(name) when is_binary(name), do: encode(name)
  defp key(name) when is_atom(name), do: encode(Atom.to_string(name))
  defp key(name) when is_number(name), do: [?", to_string(name), ?"]
  defp key(name), do: raise(Error, "#{inspect(name)} cannot be a name in JSON")

  # `text` from byte `from` on is being looked at; `size` bytes of it need no escape.
  defp escape(<<byte, rest::binary>>, text, from, size) when byte < 0x20 or byte in [?", ?\\],
    do: [binary_part(text, from, size), escaped(byte) | escape(rest, text, from + size + 1, 0)]

  defp escape(<<byte, rest::binary>>, text, from, size) when byte < 0x80,
    do: escape(rest, text, from, size + 1)

  defp escape(<<character::utf8, rest::binary>>, text, from, size),
    do: escape(rest, text, from, size + byte_size(<<character::utf8>>))

  defp escape(<<>>, text, from, size), do: [binary_part(text, from, size)]
  defp escape(_, _, _, _), do: raise(Error, "a string that is not UTF-8 cannot be written as JSON")

  defp escaped(?"), do: "\\\""
  defp escaped(?\\), do: "\\\\"
  defp escaped(?\n), do: "\\n"
  defp escaped(?\r), do: "\\r"
  defp escaped(?\t), do: "\\t"
  defp escaped(byte), do: ["\\u00", Base.encode16(<<byte>>, case: :lower)]

  @doc "Reads JSON. Raises `Martlet.JSON.Error`."
  def decode(text) do
    unless String.valid?(text), do: raise(Error, "it is not UTF-8")
    {value, rest} = value(blank(text), text, 0)

    case blank(rest) do
      "" -> value
      rest -> refuse(rest, text)
    end
  end

  defp blank(<<byte, rest::binary>>) when byte in ' \n\r\t', do: blank(rest)
  defp blank(rest), do: rest

  defp value(rest, text, depth) when depth > @max_depth, do: refuse(rest, text, "it is nested too deeply")
  defp value("{" <> rest, text, depth), do: object(blank(rest), text, depth + 1)
  defp value("[" <> rest, text, depth), do: array(blank(rest), text, depth + 1)
  defp value(<<?", rest::binary>>, text, _), do: string(rest, text)
  defp value("true" <> rest, _, _), do: {true, rest}
  defp value("false" <> rest, _, _), do: {false, rest}
  defp value("null" <> rest, _, _), do: {nil, rest}
  defp value(rest, text, _), do: number(rest, text)

  defp object("}" <> rest, _, _), do: {%{}, rest}
  defp object(rest, text, depth), do: members(rest, text, depth, [])

  defp members(<<?", rest::binary>>, text, depth, done) do
    {name, rest} = string(rest, text)
    {value, rest} = rest |> blank() |> colon(text) |> value(text, depth)
    done = [{name, value} | done]

    case blank(rest) do
      "," <> rest -> members(blank(rest), text, depth, done)
      "}" <> rest -> {done |> Enum.reverse() |> Map.new(), rest}
      rest -> refuse(rest, text)
    end
  end

  defp members(rest, text, _, _), do: refuse(rest, text)

  defp colon(":" <> rest, _), do: blank(rest)
  defp colon(rest, text), do: refuse(rest, text)

  defp array("]" <> rest, _, _), do: {[], rest}
  defp array(rest, text, depth), do: elements(rest, text, depth, [])

  defp elements(rest, text, depth, done) do
    {value, rest} = value(rest, text, depth)
    done = [value | done]

    case blank(rest) do
      "," <> rest -> elements(blank(rest), text, depth, done)
      "]" <> rest -> {Enum.reverse(done), rest}
      rest -> refuse(rest, text)
    end
  end

  defp string(rest, text), do: string(rest, rest, 0, [], text)

  # `piece` begins with what has no escape so far, `size` bytes of it; `rest` is what follows that.
  defp string(<<?", rest::binary>>, piece, size, [], _), do: {:binary.copy(binary_part(piece, 0, size)), rest}

  defp string(<<?", rest::binary>>, piece, size, done, _),
    do: {IO.iodata_to_binary([done, binary_part(piece, 0, size)]), rest}

  defp string(<<?\\, rest::binary>>, piece, size, done, text) do
    {character, rest} = unescape(rest, text)
    string(rest, rest, 0, [done, binary_part(piece, 0, size), character], text)
  end

  defp string(<<byte, rest::binary>>, piece, size, done, text) when byte >= 0x20,
    do: string(rest, piece, size + 1, done, text)

  defp string(rest, _, _, _, text), do: refuse(rest, text)

  defp unescape(<<byte, rest::binary>>, _) when byte in '"\\/', do: {<<byte>>, rest}
  defp unescape("b" <> rest, _), do: {"\b", rest}
  defp unescape("f" <> rest, _), do: {"\f", rest}
  defp unescape("n" <> rest, _), do: {"\n", rest}
  defp unescape("r" <> rest, _), do: {"\r", rest}
  defp unescape("t" <> rest, _), do: {"\t", rest}

  defp unescape(<<"u", high::binary-4, "\\u", low::binary-4, rest::binary>> = all, text) do
    with {:ok, <<0b110110::6, upper::10>>} <- Base.decode16(high, case: :mixed),
         {:ok, <<0b110111::6, lower::10>>} <- Base.decode16(low, case: :mixed) do
      {<<0x10000 + upper * 0x400 + lower::utf8>>, rest}
    else
      _ -> unit(all, text)
    end
  end

  defp unescape(all, text), do: unit(all, text)

  defp unit(<<"u", digits::binary-4, rest::binary>> = all, text) do
    case Base.decode16(digits, case: :mixed) do
      {:ok, <<unit::16>>} when unit not in 0xD800..0xDFFF -> {<<unit::utf8>>, rest}
      _ -> refuse(all, text)
    end
  end

  defp unit(rest, text), do: refuse(rest, text)

  defp number(rest, text) do
    {sign, rest} = if match?("-" <> _, rest), do: {"-", binary_part(rest, 1, byte_size(rest) - 1)}, else: {"", rest}
    {whole, after_whole} = digits(rest)

    if whole == "" or (byte_size(whole) > 1 and match?("0" <> _, whole)) or byte_size(whole) > @max_digits,
      do: refuse(rest, text)

    {fraction, after_fraction} = fraction(after_whole, text)
    {exponent, rest} = exponent(after_fraction, text)

    if fraction == "" and exponent == "" do
      {String.to_integer(sign <> whole), rest}
    else
      fraction = if fraction == "", do: "0", else: fraction
      {to_float("#{sign}#{whole}.#{fraction}#{exponent}", after_whole, text), rest}
    end
  end

  defp fraction("." <> rest, text) do
    case digits(rest) do
      {"", rest} -> refuse(rest, text)
      found -> found
    end
  end

  defp fraction(rest, _), do: {"", rest}

  defp exponent(<<mark, rest::binary>>, text) when mark in 'eE' do
    {sign, rest} =
      case rest do
        <<sign, rest::binary>> when sign in '+-' -> {<<sign>>, rest}
        rest -> {"", rest}
      end

    case digits(rest) do
      {"", rest} -> refuse(rest, text)
      {digits, rest} -> {"e" <> sign <> digits, rest}
    end
  end

  defp exponent(rest, _), do: {"", rest}

  defp to_float(digits, rest, text) do
    String.to_float(digits)
  rescue
    ArgumentError -> refuse(rest, text, "a number is too large")
  end

  defp digits(text), do: digits(text, text, 0)
  defp digits(<<digit, rest::binary>>, text, size) when digit in ?0..?9, do: digits(rest, text, size + 1)
  defp digits(rest, text, size), do: {binary_part(text, 0, size), rest}

  defp refuse(rest, text, reason \\ nil) do
    reason = reason || if rest == "", do: "it ends too early", else: "unexpected #{inspect(String.first(rest))}"
    raise Error, "#{reason} at byte #{byte_size(text) - byte_size(rest)}"
  end
end
