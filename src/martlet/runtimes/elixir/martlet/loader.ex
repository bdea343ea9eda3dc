defmodule Martlet.LoadError do
  @moduledoc "The code has no handler, or cannot be compiled."
  defexception [:message]
end

defmodule Martlet.Loader do
  @moduledoc "Finds the user's function: which files to compile, and what in them to call."

  alias Martlet.LoadError

  @files ~w(handler.exs handler.ex main.exs main.ex lib/handler.ex lib/main.ex function.exs index.exs app.exs)
  @names ~w(handle handler main)

  @doc "Compiles the code in the working directory and returns what to call with a request. Raises where there is nothing."
  def load(handler) do
    {file, module, names} = locate(handler)
    "lib/**/*.ex" |> Path.wildcard() |> List.delete(file) |> compile_library()
    modules = if file, do: Enum.map(Code.compile_file(file), &elem(&1, 0)), else: []
    modules = if module, do: [module], else: modules

    found =
      for name <- names, module <- modules, Code.ensure_loaded?(module), exported?(module, name), do: {module, name}

    case found do
      [{module, name} | _] -> Function.capture(module, String.to_atom(name), 1)
      [] -> raise LoadError, "#{where(module, file)} has no function #{hd(names)}/1"
    end
  end

  defp exported?(module, name), do: function_exported?(module, String.to_atom(name), 1)

  defp where(nil, file), do: "no module of #{file}"
  defp where(module, _), do: "the module #{inspect(module)}"

  # `handle`, `file`, `file.exs`, `file:function`, `Module.function`, `function`.
  defp locate("handle"), do: {usual_file!(), nil, @names}

  defp locate(handler) do
    {named, function} =
      case String.split(handler, ":", parts: 2) do
        [file, function] -> {file, [function]}
        [file] -> {file, @names}
      end

    cond do
      file = Enum.find([named, "#{named}.exs", "#{named}.ex"], &source?/1) -> {file, nil, function}
      parts = Regex.run(~r/\A([A-Z][\w.]*)\.(\w+[?!]?)\z/, handler) -> in_module(parts)
      true -> {usual_file!(), nil, [handler]}
    end
  end

  defp in_module([_, module, function]), do: {usual_file(), Module.concat([module]), [function]}

  defp source?(path), do: Path.extname(path) in [".ex", ".exs"] and File.regular?(path)

  defp usual_file! do
    usual_file() ||
      raise LoadError, "there is none of #{Enum.join(@files, ", ")}; name the file in 'handler'"
  end

  defp usual_file do
    with nil <- Enum.find(@files, &File.regular?/1) do
      case Path.wildcard("*.{ex,exs}") -- ["mix.exs"] do
        [only] -> only
        _ -> nil
      end
    end
  end

  # What is wrong with a file the compiler prints as well, so it is in the log.
  defp compile_library(files) do
    with {:error, errors, _} <- Kernel.ParallelCompiler.compile(files) do
      raise LoadError,
            Enum.map_join(errors, "\n", fn {file, _, message} -> "#{Path.relative_to_cwd(file)}: #{message}" end)
    end
  end
end
