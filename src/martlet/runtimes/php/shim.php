<?php

// The PHP shim: serves a function by the program protocol of docs/design.md, on descriptors 3 (a listening socket) and 4.
//
// PHP cannot adopt a listening socket, so the calls of the C library that take one are made by FFI, which comes with PHP.

declare(strict_types=1);

namespace Martlet;

const OURS = __DIR__;

foreach (['Failure', 'Handler', 'Http1', 'Loader', 'Logs', 'OpenRuntimes', 'Reader', 'Request', 'Response', 'Server', 'Sockets'] as $class) {
    require __DIR__ . "/martlet/{$class}.php";
}

/** Runs once what every request will run, before there is code. */
function warm(): void
{
    $head = new Head("POST /?a=b HTTP/1.1\r\nx-request-id: 0");
    $handler = new Handler(fn (Request $request) => ['query' => $request->query, 'json' => $request->json()]);
    $handler->answer($head, '{}', fn (string $bytes) => null);
}

/** One life: wait for a specification, load the code, say how that went, serve. */
function run(): void
{
    $line = fgets(STDIN);
    if ($line === false) {
        return;
    }
    $spec = json_decode($line, true, flags: JSON_THROW_ON_ERROR);
    Logs::install();
    Failure::guard();
    try {
        $started = hrtime(true);
        $function = Loader::load($spec);
        OpenRuntimes::$startup = (hrtime(true) - $started) / 1e9;
    } catch (\Throwable $error) {
        Failure::answerLoad(Failure::describe($error));
    }
    Sockets::say(4, Response::json(['mode' => 'handler', 'load_ms' => round(OpenRuntimes::$startup * 1000, 3)]));
    (new Server(new Handler($function), $spec['concurrency'], $spec['max_body']))->run(3);
}

warm();
run();
