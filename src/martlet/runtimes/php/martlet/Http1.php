<?php

declare(strict_types=1);

namespace Martlet;

/** The peer sent what is not acceptable HTTP; the connection cannot go on. The code is the status. */
final class BadRequest extends \Exception
{
    public function __construct(string $message, int $status = 400)
    {
        parent::__construct($message, $status);
    }
}

/** Request line and headers. The length is the bytes of the body, or null where it is chunked. */
final class Head
{
    private const REQUEST_LINE = "~\A([!#$%&'*+\-.^_`|\~0-9A-Za-z]+) (/[!-\~\x80-\xff]*|\*) HTTP/1\.([01])\z~";

    public readonly string $method;
    public readonly string $target;
    public readonly array $fields;
    public readonly ?int $length;
    public readonly bool $chunks;
    public readonly bool $keepAlive;

    public function __construct(string $data)
    {
        $lines = explode("\r\n", $data);
        if (!preg_match(self::REQUEST_LINE, array_shift($lines), $match)) {
            throw new BadRequest('this is not an HTTP/1.1 request');
        }
        [, $this->method, $this->target, $minor] = $match;
        $this->fields = self::fields($lines);
        $this->length = self::length($this->fields);
        $this->chunks = $minor === '1';
        $this->keepAlive = $this->chunks && !str_contains(strtolower($this->fields['connection'] ?? ''), 'close');
    }

    private static function fields(array $lines): array
    {
        $fields = [];
        foreach ($lines as $line) {
            if (!preg_match(Http1::FIELD, $line, $match)) {
                throw new BadRequest('a header is malformed');
            }
            $name = strtolower($match[1]);
            $value = Http1::text($match[2]);
            $fields[$name] = isset($fields[$name]) ? $fields[$name] . ($name === 'cookie' ? '; ' : ', ') . $value : $value;
        }
        return $fields;
    }

    private static function length(array $fields): ?int
    {
        $length = $fields['content-length'] ?? null;
        $coding = $fields['transfer-encoding'] ?? null;
        if ($coding !== null) {
            if ($length !== null || strtolower($coding) !== 'chunked') {
                throw new BadRequest('a body must either have a content-length or be chunked');
            }
            return null;
        }
        if ($length !== null && !preg_match('/\A\d{1,15}\z/', $length)) {
            throw new BadRequest('content-length must be a number of bytes');
        }
        return (int) $length;
    }
}

/** Responses as bytes (RFC 9112). */
final class Http1
{
    public const FIELD = "~\A([!#$%&'*+\-.^_`|\~0-9A-Za-z]+):[ \t]*([^\r\n\\0]*?)[ \t]*\z~";
    private const OURS = ['connection', 'content-length', 'keep-alive', 'transfer-encoding'];
    private const REASONS = [
        200 => 'OK', 201 => 'Created', 202 => 'Accepted', 203 => 'Non-Authoritative Information', 204 => 'No Content',
        206 => 'Partial Content', 300 => 'Multiple Choices', 301 => 'Moved Permanently', 302 => 'Found',
        303 => 'See Other', 304 => 'Not Modified', 307 => 'Temporary Redirect', 308 => 'Permanent Redirect',
        400 => 'Bad Request', 401 => 'Unauthorized', 403 => 'Forbidden', 404 => 'Not Found',
        405 => 'Method Not Allowed', 409 => 'Conflict', 410 => 'Gone', 413 => 'Content Too Large',
        415 => 'Unsupported Media Type', 418 => "I'm a Teapot", 422 => 'Unprocessable Content',
        429 => 'Too Many Requests', 431 => 'Request Header Fields Too Large', 500 => 'Internal Server Error',
        501 => 'Not Implemented', 502 => 'Bad Gateway', 503 => 'Service Unavailable', 504 => 'Gateway Timeout',
    ];

    /** Reads bytes of a head as text: UTF-8 where they are that, else Latin-1. */
    public static function text(string $bytes): string
    {
        if (preg_match('//u', $bytes)) {
            return $bytes;
        }
        return preg_replace_callback(
            '/[\x80-\xff]/',
            fn (array $match) => chr(0xC0 | ord($match[0]) >> 6) . chr(0x80 | ord($match[0]) & 0x3F),
            $bytes,
        );
    }

    /** Undoes percent-encoding. What is no UTF-8 then becomes U+FFFD. */
    public static function decode(string $text): string
    {
        return self::scrub(rawurldecode($text));
    }

    public static function scrub(string $bytes): string
    {
        return preg_match('//u', $bytes) ? $bytes : htmlspecialchars_decode(htmlspecialchars($bytes, ENT_SUBSTITUTE));
    }

    /**
     * Writes headers as they stand on the wire, a value that is an array as several. Those that frame the body are left
     * out.
     *
     * @throws \ValueError a name or value would end its line
     */
    public static function headerLines(array $headers): string
    {
        $lines = '';
        foreach ($headers as $name => $values) {
            $name = strtolower((string) $name);
            foreach ((array) $values as $value) {
                $line = "{$name}: {$value}";
                if (!preg_match(self::FIELD, $line)) {
                    throw new \ValueError(Response::json([$name => $value]) . ' cannot be sent as a header');
                }
                $lines .= in_array($name, self::OURS, true) ? '' : "{$line}\r\n";
            }
        }
        return $lines;
    }

    /** All of a response whose body is known; the lines come from headerLines. */
    public static function whole(Head $head, int $status, string $lines, string $body): string
    {
        $bare = $status === 204 || $status === 304;
        $lines .= $bare ? '' : 'content-length: ' . strlen($body) . "\r\n";
        return self::start($status, $lines, $head->keepAlive) . ($bare || $head->method === 'HEAD' ? '' : $body);
    }

    /** The head of a response. */
    public static function start(int $status, string $lines, bool $keepAlive): string
    {
        $reason = self::REASONS[$status] ?? 'Unknown';
        return "HTTP/1.1 {$status} {$reason}\r\n{$lines}" . ($keepAlive ? '' : "connection: close\r\n") . "\r\n";
    }

    public static function chunk(string $piece): string
    {
        return dechex(strlen($piece)) . "\r\n{$piece}\r\n";
    }

    /** The response to a malformed request. */
    public static function problem(BadRequest $error): string
    {
        $text = $error->getMessage();
        $lines = "content-type: text/plain\r\ncontent-length: " . strlen($text) . "\r\n";
        return self::start($error->getCode(), $lines, false) . $text;
    }
}
