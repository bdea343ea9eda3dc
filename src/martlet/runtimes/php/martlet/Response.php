<?php

declare(strict_types=1);

namespace Martlet;

/** What a handler may return, and what becomes of it: a body of any kind, with a status and headers. */
final class Response
{
    public const JSON = 'application/json';
    public const TEXT = 'text/plain; charset=utf-8';
    public const BYTES = 'application/octet-stream';
    private const PIECE = 65536;

    /** @param array<string, string|list<string>> $headers */
    public function __construct(
        public readonly mixed $body,
        public readonly int $status = 200,
        public readonly array $headers = [],
    ) {
        if ($status < 200 || $status > 599) {
            throw new \ValueError("{$status} is not an HTTP status (200 to 599)");
        }
    }

    /** Turns whatever a handler returned into a response. */
    public static function from(mixed $value): self
    {
        return $value instanceof self ? $value : new self($value, $value === null ? 204 : 200);
    }

    public static function json(mixed $value): string
    {
        return json_encode(
            $value,
            JSON_UNESCAPED_UNICODE | JSON_UNESCAPED_SLASHES | JSON_PRESERVE_ZERO_FRACTION | JSON_THROW_ON_ERROR,
        );
    }

    public function streamed(): bool
    {
        return $this->body instanceof \Traversable || is_resource($this->body);
    }

    /** The parts of a streamed body, as they come. */
    public function pieces(): iterable
    {
        if (!is_resource($this->body)) {
            yield from $this->body;
            return;
        }
        while (!feof($this->body)) {
            yield fread($this->body, self::PIECE);
        }
        fclose($this->body);
    }

    /** The body as bytes, and the content type it has by itself. */
    public function encode(): array
    {
        return match (true) {
            $this->body === null => ['', null],
            is_string($this->body) => [$this->body, self::typeOf($this->body)],
            default => [self::json($this->body), self::JSON],
        };
    }

    /** The header lines, where $type is the content type unless the handler has named one. */
    public function lines(?string $type): string
    {
        $named = array_filter(
            array_change_key_case($this->headers),
            fn ($name) => !str_starts_with((string) $name, OpenRuntimes::PREFIX),
            ARRAY_FILTER_USE_KEY,
        );
        return Http1::headerLines($type === null ? $named : $named + ['content-type' => $type]);
    }

    /** A string is text where it is UTF-8; PHP's strings do not say. */
    public static function typeOf(string $text): string
    {
        return preg_match('//u', $text) ? self::TEXT : self::BYTES;
    }
}
