<?php

function handle($request)
{
    static $count = 0;

    return match ($request->path) {
        '/json' => ['hello' => 'world', 'unicode' => 'żółw 🐢', 'list' => [1, 2.5, null, true]],
        '/echo' => $request->respond($request->body, headers: ['content-type' => $request->header('Content-Type')]),
        '/inspect' => [
            'method' => $request->method, 'path' => $request->path, 'query' => (object) $request->query,
            'headers' => $request->headers, 'length' => strlen($request->body),
        ],
        '/text' => 'text ✓',
        '/binary' => implode('', array_map(chr(...), range(0, 255))),
        '/empty' => null,
        '/status' => $request->respond('teapot', 418, ['x-colour' => 'blue']),
        '/raise' => throw new RuntimeException('the reason ✗'),
        '/crash' => exit(3),
        '/sleep' => rest((int) $request->query['ms']),
        '/environment' => ['GREETING' => getenv('GREETING') === false ? null : getenv('GREETING')],
        '/log' => write(),
        '/say' => say($request->query['word']),
        '/count' => ['count' => ++$count],
        '/stream' => stream(),
        '/length' => ['length' => strlen($request->body)],
        '/large' => str_repeat('x', 5_000_000),
        '/split' => $request->respond('', headers: ['x-colour' => "blue\r\nx-other: 1"]),
        '/unmodified' => $request->respond('unseen', 304),
        '/break' => breakOff(),
        default => $request->respond(['error' => "there is no {$request->path}"], 404),
    };
}

function rest(int $milliseconds): array
{
    usleep($milliseconds * 1000);
    return ['slept' => $milliseconds];
}

function write(): string
{
    echo "to stdout ✓\n";
    fwrite(STDERR, "to stderr\n");
    trigger_error('a warning', E_USER_WARNING);
    return 'logged';
}

function say(string $word): string
{
    trigger_error("$word before", E_USER_WARNING);
    usleep(100_000);
    trigger_error("$word after", E_USER_WARNING);
    return 'said';
}

function stream(): Generator
{
    yield "one\n";
    usleep(300_000);
    yield "two\n";
}

function breakOff(): Generator
{
    yield "one\n";
    throw new RuntimeException('the reason');
}
