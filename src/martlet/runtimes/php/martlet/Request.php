<?php

declare(strict_types=1);

namespace Martlet;

/** The request's body is not JSON. A handler that lets it pass answers 400. */
final class BadJson extends \Exception
{
}

/**
 * One request. It also carries what a function of Open Runtimes expects of its context: req, res, log() and error().
 *
 * @property-read array<string, string> $query the first value of each name of the query
 * @property-read array<string, list<string>> $queryParams every value of each name
 * @property-read ?string $id
 * @property-read ?string $function
 * @property-read ?string $revision
 * @property-read ?int $deadlineMs milliseconds the request had when it arrived
 * @property-read Req $req
 * @property-read Res $res
 */
final class Request
{
    public readonly string $method;
    public readonly string $path;
    public readonly string $queryString;
    private ?array $params = null;
    private ?Context $context = null;
    private bool $contextUsed = false;
    private readonly float $arrived;

    /** @param array<string, string> $headers by name, in lower case */
    public function __construct(Head $head, public readonly array $headers, public readonly string $body)
    {
        $this->arrived = microtime(true);
        $this->method = $head->method;
        [$path, $this->queryString] = explode('?', $head->target, 2) + [1 => ''];
        $this->path = Http1::decode($path);
    }

    public function __get(string $name): mixed
    {
        return match ($name) {
            'query' => array_map(fn (array $values) => $values[0], $this->params()),
            'queryParams' => $this->params(),
            'id' => $this->headers['x-request-id'] ?? null,
            'function' => $this->headers['x-faas-function'] ?? null,
            'revision' => $this->headers['x-faas-revision'] ?? null,
            'deadlineMs' => isset($this->headers['x-faas-deadline']) ? (int) $this->headers['x-faas-deadline'] : null,
            'req', 'res' => $this->useContext()->$name,
            default => throw new \Error("a request has no property {$name}"),
        };
    }

    /** A header, by its name in any case. */
    public function header(string $name, ?string $default = null): ?string
    {
        return $this->headers[strtolower($name)] ?? $default;
    }

    /** The body as text, in UTF-8; bytes that are none become U+FFFD. */
    public function text(): string
    {
        return Http1::scrub($this->body);
    }

    /** The body read as JSON, objects as arrays; an empty array where it is empty. */
    public function json(): mixed
    {
        if ($this->body === '') {
            return [];
        }
        try {
            return json_decode($this->body, true, flags: JSON_THROW_ON_ERROR);
        } catch (\JsonException $error) {
            throw new BadJson("the request body is not JSON: {$error->getMessage()}");
        }
    }

    /** Milliseconds that are left of deadlineMs. */
    public function remainingMs(): ?float
    {
        $deadline = $this->deadlineMs;
        return $deadline === null ? null : $deadline - (microtime(true) - $this->arrived) * 1000;
    }

    /** A response with a status and headers; a header whose value is an array is sent several times. */
    public function respond(mixed $body = null, int $status = 200, array $headers = []): Response
    {
        return new Response($body, $status, $headers);
    }

    public function log(mixed ...$values): void
    {
        $this->context()->log(...$values);
    }

    public function error(mixed ...$values): void
    {
        $this->context()->error(...$values);
    }

    /** Drops what goes to log and error from here on. */
    public function mute(): void
    {
        $this->context()->muted = true;
    }

    /** Whether the handler has treated the request as the context of Open Runtimes. */
    public function contextUsed(): bool
    {
        return $this->contextUsed;
    }

    private function useContext(): Context
    {
        $this->contextUsed = true;
        return $this->context();
    }

    private function context(): Context
    {
        return $this->context ??= new Context($this);
    }

    private function params(): array
    {
        if ($this->params === null) {
            $this->params = [];
            foreach (explode('&', strtr($this->queryString, '+', ' ')) as $pair) {
                if ($pair !== '') {
                    [$name, $value] = explode('=', $pair, 2) + [1 => ''];
                    $this->params[Http1::decode($name)][] = Http1::decode($value);
                }
            }
        }
        return $this->params;
    }
}
