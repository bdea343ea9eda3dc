defmodule Martlet.Http1 do
  @moduledoc "HTTP/1.1 of one connection: requests are read from a socket, and responses become bytes (RFC 9112)."

  alias Martlet.Text

  defmodule BadRequest do
    @moduledoc "The peer sent what is not acceptable HTTP; the connection cannot go on."
    defexception [:message, status: 400]
  end

  defmodule Disconnected do
    @moduledoc "The peer went away before the request or the response was complete."
    defexception message: "the peer went away"
  end

  # Bytes of request line and headers together; the gateway's own limit is lower.
  @max_head 64 * 1024
  @piece 1024 * 1024
  @our_fields ~w(connection content-length keep-alive transfer-encoding)

  @doc """
  Reads the head of a request from what has come, and more of it from the socket. Returns the head, and what comes
  behind it; `length` is the bytes of the body, or `:chunked`.
  """
  def head(socket, buffer, max_body) do
    case :binary.match(buffer, "\r\n\r\n") do
      {at, 4} when at <= @max_head ->
        <<lines::binary-size(at), "\r\n\r\n", rest::binary>> = buffer
        head = parse(:binary.split(lines, "\r\n", [:global]))
        if is_integer(head.length) and head.length > max_body, do: too_large(max_body)
        {head, rest}

      :nomatch when byte_size(buffer) <= @max_head ->
        head(socket, buffer <> receive_more(socket, 0), max_body)

      _ ->
        raise BadRequest, message: "the request's headers are too large", status: 431
    end
  end

  defp parse([line | lines]) do
    with [method, target, <<"HTTP/1.", minor>>] when minor in '01' <- :binary.split(line, " ", [:global]),
         true <- token?(method) and target?(target) do
      fields = Enum.reduce(lines, %{}, &add_field/2)
      %{method: method, target: target, fields: fields, minor: minor - ?0, length: length_of(fields)}
    else
      _ -> raise BadRequest, "this is not an HTTP/1.1 request"
    end
  end

  defp add_field(line, fields) do
    with [name, value] <- :binary.split(line, ":"),
         true <- token?(name),
         :nomatch <- :binary.match(value, ["\r", "\n", "\0"]) do
      name = String.downcase(name, :ascii)
      value = value |> trim() |> Text.of_head()
      separator = if name == "cookie", do: "; ", else: ", "
      Map.update(fields, name, value, &(&1 <> separator <> value))
    else
      _ -> raise BadRequest, "a header is malformed"
    end
  end

  defp trim(<<space, rest::binary>>) when space in ' \t', do: trim(rest)
  defp trim(value), do: trim_end(value, byte_size(value))

  defp trim_end(value, size) do
    if size > 0 and :binary.at(value, size - 1) in ' \t',
      do: trim_end(value, size - 1),
      else: binary_part(value, 0, size)
  end

  defp length_of(%{"transfer-encoding" => coding} = fields) do
    if Map.has_key?(fields, "content-length") or String.downcase(coding) != "chunked",
      do: raise(BadRequest, "a body must either have a content-length or be chunked")

    :chunked
  end

  defp length_of(%{"content-length" => length}) do
    case Integer.parse(length) do
      {number, ""} when number >= 0 and byte_size(length) <= 15 and binary_part(length, 0, 1) not in ["+", "-"] ->
        number

      _ ->
        raise BadRequest, "content-length must be a number of bytes"
    end
  end

  defp length_of(_), do: 0

  defp token?(""), do: false
  defp token?(text), do: token_bytes?(text)

  defp token_bytes?(<<byte, rest::binary>>)
       when byte in ?a..?z or byte in ?A..?Z or byte in ?0..?9 or byte in '!#$%&\'*+-.^_`|~',
       do: token_bytes?(rest)

  defp token_bytes?(rest), do: rest == ""

  defp target?("*"), do: true
  defp target?("/" <> rest), do: target_bytes?(rest)
  defp target?(_), do: false

  defp target_bytes?(<<byte, rest::binary>>) when byte in ?!..?~ or byte >= 0x80, do: target_bytes?(rest)
  defp target_bytes?(rest), do: rest == ""

  @doc "Reads the body of a request. Returns it, and what comes behind it."
  def body(socket, %{length: :chunked}, buffer, max_body), do: chunks(socket, buffer, [], max_body)
  def body(socket, %{length: length}, buffer, _), do: exactly(socket, buffer, length)

  defp chunks(socket, buffer, done, room) do
    {line, buffer} = line(socket, buffer)

    case Regex.run(~r/\A([0-9A-Fa-f]{1,8})[ \t]*(?:;.*)?\z/, line) do
      [_, size] -> chunk(socket, buffer, done, room, String.to_integer(size, 16))
      nil -> raise BadRequest, "a chunk does not begin with its size"
    end
  end

  defp chunk(socket, buffer, done, _, 0), do: {IO.iodata_to_binary(done), trailers(socket, buffer)}
  defp chunk(_, _, done, room, size) when size > room, do: too_large(room + IO.iodata_length(done))

  defp chunk(socket, buffer, done, room, size) do
    case exactly(socket, buffer, size + 2) do
      {<<piece::binary-size(size), "\r\n">>, buffer} -> chunks(socket, buffer, [done, piece], room - size)
      _ -> raise BadRequest, "a chunk is longer than its size says"
    end
  end

  # They mean nothing to a function.
  defp trailers(socket, buffer) do
    case line(socket, buffer) do
      {"", rest} -> rest
      {_, rest} -> trailers(socket, rest)
    end
  end

  defp line(socket, buffer) do
    case :binary.split(buffer, "\r\n") do
      [line, rest] -> {line, rest}
      [_] when byte_size(buffer) <= @max_head -> line(socket, buffer <> receive_more(socket, 0))
      _ -> raise BadRequest, "a line between chunks is too long"
    end
  end

  defp exactly(_, buffer, size) when byte_size(buffer) >= size do
    <<found::binary-size(size), rest::binary>> = buffer
    {found, rest}
  end

  defp exactly(socket, buffer, size), do: {pieces(socket, [buffer], size - byte_size(buffer)), ""}

  defp pieces(_, done, 0), do: IO.iodata_to_binary(done)

  defp pieces(socket, done, size) do
    piece = receive_more(socket, min(size, @piece))
    pieces(socket, [done, piece], size - byte_size(piece))
  end

  defp receive_more(socket, size) do
    case :gen_tcp.recv(socket, size) do
      {:ok, data} -> data
      {:error, _} -> raise Disconnected
    end
  end

  defp too_large(max_body),
    do: raise(BadRequest, message: "the request body is over #{max_body} bytes", status: 413)

  @doc "Whether the connection may carry another request."
  def keep_alive?(%{minor: minor, fields: fields}) do
    minor == 1 and not (fields |> Map.get("connection", "") |> String.downcase() |> String.contains?("close"))
  end

  @doc """
  Writes headers, a list of names and values, as they stand on the wire. Those that frame the body are left out.
  Raises ArgumentError: a name or value would end its line.
  """
  def header_lines(headers) do
    for {name, values} <- headers, value <- List.wrap(values), do: header_line(to_string(name), to_string(value))
  end

  defp header_line(name, value) do
    unless token?(name) and :binary.match(value, ["\r", "\n", "\0"]) == :nomatch,
      do: raise(ArgumentError, "#{inspect({name, value})} cannot be sent as a header")

    name = String.downcase(name, :ascii)
    if name in @our_fields, do: [], else: [name, ": ", value, "\r\n"]
  end

  @doc "All of a response whose body is known. `lines` come from `header_lines`."
  def whole(head, status, lines, body) do
    bare = status in [204, 304]
    length = if bare, do: [], else: ["content-length: ", body |> IO.iodata_length() |> Integer.to_string(), "\r\n"]
    body = if bare or head.method == "HEAD", do: [], else: body
    [start(status, [lines, length], keep_alive?(head)) | body]
  end

  @doc "The head of a response that is streamed: in chunks, or, for HTTP/1.0, until the connection ends."
  def start_stream(%{minor: 1} = head, status, lines),
    do: start(status, [lines, "transfer-encoding: chunked\r\n"], keep_alive?(head))

  def start_stream(_, status, lines), do: start(status, lines, false)

  defp start(status, lines, keep_alive) do
    close = if keep_alive, do: [], else: "connection: close\r\n"
    ["HTTP/1.1 ", Integer.to_string(status), " \r\n", lines, close, "\r\n"]
  end

  @doc "A piece of a streamed body as it is sent; an empty one ends it."
  def piece(%{minor: 1}, data), do: [data |> IO.iodata_length() |> Integer.to_string(16), "\r\n", data, "\r\n"]
  def piece(_, data), do: data

  @doc "The answer to what is not acceptable HTTP."
  def refusal(%BadRequest{status: status, message: message}) do
    length = ["content-length: ", Integer.to_string(byte_size(message)), "\r\n"]
    [start(status, ["content-type: text/plain\r\n", length], false), message]
  end
end
