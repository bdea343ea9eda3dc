# The Elixir shim: serves a function by the program protocol of docs/design.md, on descriptors 3 (a listening socket) and 4.
#
# It needs Elixir's and Erlang's standard libraries only. It is compiled before there is code, so that the compiler is
# ready for that.

Code.compiler_options(docs: false, debug_info: false)
sources = __DIR__ |> Path.join("martlet/*.ex") |> Path.wildcard()
{:ok, _, _} = Kernel.ParallelCompiler.compile(sources)
Martlet.Life.run()
