<?php

declare(strict_types=1);

namespace Martlet;

/** A function that uses its context has returned nothing. */
final class NothingReturned extends \Exception
{
}

/** The headers of a request do not allow it to be run, or not for so long. */
final class Refused extends \Exception
{
}

/** The contract of Open Runtimes: `return function ($context) {…}` with $context->req, ->res, ->log() and ->error(). */
final class OpenRuntimes
{
    public const PREFIX = 'x-open-runtimes-';

    /** Seconds that loading the code took. */
    public static float $startup = 0.0;

    /** The answer to a request for the runtime itself; null for those for the function. */
    public static function own(Head $head): ?Response
    {
        return match ("{$head->method} {$head->target}") {
            'GET /__opr/health' => new Response('OK'),
            'GET /__opr/timings' => new Response(sprintf("startup=%.3F\n", self::$startup)),
            default => null,
        };
    }
}

/** What the headers of one request ask for. */
final class Terms
{
    private const NO_RETURN = 'Return statement missing. return context.res.empty() if no response is expected.';
    private const TIMED_OUT = 'Execution timed out.';

    /** @var array<string, string> the headers that the function sees */
    public readonly array $others;
    /** @var array<string, string> those of the contract, without their prefix */
    private readonly array $given;

    public function __construct(array $fields)
    {
        $given = $others = [];
        foreach ($fields as $name => $value) {
            if (str_starts_with((string) $name, OpenRuntimes::PREFIX)) {
                $given[substr($name, strlen(OpenRuntimes::PREFIX))] = $value;
            } else {
                $others[$name] = $value;
            }
        }
        $this->given = $given;
        $this->others = $others;
    }

    /** Runs a function as these terms allow it. */
    public function call(callable $function, Request $request): Response
    {
        try {
            $this->authorise();
            if (in_array($this->given['logging'] ?? '', ['disabled', 'disable'], true)) {
                $request->mute();
            }
            $result = $this->limited(fn () => $function($request));
        } catch (Refused $refused) {
            $refused->getMessage() === self::TIMED_OUT && Logs::emit(2, 'error', self::TIMED_OUT);
            return new Response($refused->getMessage(), 500);
        }
        if ($result === null && $request->contextUsed()) {
            throw new NothingReturned(self::NO_RETURN);
        }
        return Response::from($result);
    }

    /** The id of the log, as a line of every response to a request that has such headers. */
    public function stamp(): string
    {
        if ($this->given === []) {
            return '';
        }
        return Http1::headerLines([OpenRuntimes::PREFIX . 'log-id' => $this->given['log-id'] ?? bin2hex(random_bytes(10))]);
    }

    private function authorise(): void
    {
        $secret = getenv('OPEN_RUNTIMES_SECRET') ?: '';
        if ($secret !== '' && !hash_equals($secret, $this->given['secret'] ?? '')) {
            throw new Refused('Unauthorized. Provide correct "x-open-runtimes-secret" header.');
        }
    }

    private function limited(\Closure $run): mixed
    {
        $seconds = $this->given['timeout'] ?? null;
        if ($seconds === null) {
            return $run();
        }
        if (!preg_match('/\A\d+\z/', $seconds) || (int) $seconds < 1) {
            throw new Refused('Header "x-open-runtimes-timeout" must be an integer greater than 0.');
        }
        pcntl_signal(SIGALRM, fn () => throw new Refused(self::TIMED_OUT));
        pcntl_async_signals(true);
        pcntl_alarm((int) $seconds);
        try {
            return $run();
        } finally {
            pcntl_alarm(0);
            pcntl_async_signals(false);
        }
    }
}

/** What stands behind req, res, log and error of a request. */
final class Context
{
    public readonly Req $req;
    public readonly Res $res;
    public bool $muted = false;

    public function __construct(Request $request)
    {
        $this->req = new Req($request);
        $this->res = new Res();
    }

    public function log(mixed ...$values): void
    {
        $this->write('info', $values);
    }

    public function error(mixed ...$values): void
    {
        $this->write('error', $values);
    }

    private function write(string $level, array $values): void
    {
        if (!$this->muted) {
            $texts = array_map(fn (mixed $value) => is_string($value) ? $value : Response::json($value), $values);
            Logs::emit(2, $level, implode(' ', $texts));
        }
    }
}

/**
 * The request, by the names of Open Runtimes: method, url, scheme, host, port, path, query, queryString, headers, body,
 * bodyText, bodyJson and bodyBinary.
 */
final class Req
{
    public function __construct(private readonly Request $request)
    {
    }

    public function __get(string $name): mixed
    {
        return match ($name) {
            'method', 'path', 'queryString', 'headers' => $this->request->$name,
            'query' => $this->query(),
            'bodyText' => $this->request->text(),
            'bodyJson' => $this->request->json(),
            'bodyBinary' => $this->request->body,
            'body' => $this->body(),
            'scheme' => $this->request->header('x-forwarded-proto', 'http'),
            'host' => $this->authority()[0],
            'port' => (int) ($this->authority()[1] ?? ($this->scheme === 'https' ? 443 : 80)),
            'url' => $this->url(),
            default => throw new \Error("a request has no property {$name}"),
        };
    }

    private function body(): mixed
    {
        $type = $this->request->header('content-type', '');
        return match (true) {
            str_starts_with($type, 'application/json') => $this->request->json(),
            str_starts_with($type, 'text/') => $this->request->text(),
            default => $this->request->body,
        };
    }

    /** The last value of each name, as it was sent: not decoded. */
    private function query(): array
    {
        $query = [];
        foreach (explode('&', $this->request->queryString) as $pair) {
            [$name, $value] = explode('=', $pair, 2) + [1 => ''];
            if ($name !== '') {
                $query[$name] = $value;
            }
        }
        return $query;
    }

    private function url(): string
    {
        $query = $this->request->queryString;
        $authority = implode(':', $this->authority());
        return "{$this->scheme}://{$authority}{$this->request->path}" . ($query === '' ? '' : "?{$query}");
    }

    private function authority(): array
    {
        $host = $this->request->header('x-forwarded-host') ?? $this->request->header('host', 'localhost');
        return preg_split('/:(?=\d+\z)/', $host);
    }
}

/** Makes responses. */
final class Res
{
    public function text(string $body, int $status = 200, array $headers = []): Response
    {
        return self::respond($body, $status, $headers, 'text/plain');
    }

    public function json(mixed $value, int $status = 200, array $headers = []): Response
    {
        return self::respond(Response::json($value), $status, $headers, 'application/json');
    }

    public function binary(string $bytes, int $status = 200, array $headers = []): Response
    {
        return self::respond($bytes, $status, $headers, 'application/octet-stream');
    }

    public function empty(): Response
    {
        return new Response(null, 204);
    }

    public function redirect(string $url, int $status = 301, array $headers = []): Response
    {
        return new Response('', $status, ['location' => $url] + $headers);
    }

    private static function respond(string $body, int $status, array $headers, string $type): Response
    {
        $headers = array_change_key_case($headers);
        $type = $headers['content-type'] ?? $type;
        if (preg_match('~\A(text/|application/json)~', $type) && !str_contains($type, 'charset=')) {
            $type .= '; charset=utf-8';
        }
        return new Response($body, $status, ['content-type' => $type] + $headers);
    }
}
