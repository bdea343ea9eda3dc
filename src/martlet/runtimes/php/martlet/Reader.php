<?php

declare(strict_types=1);

namespace Martlet;

/** Reads requests from a connection, however their bytes are cut. */
final class Reader
{
    private const MAX_HEAD = 65536;

    private string $buffer = '';

    public function __construct(private readonly int $socket, private readonly int $maxBody)
    {
    }

    /** Whether the peer has sent a part of a further request. */
    public function begun(): bool
    {
        return $this->buffer !== '';
    }

    /** Returns the next head; null where the peer has closed. */
    public function head(): ?Head
    {
        while (($end = strpos($this->buffer, "\r\n\r\n")) === false) {
            if (strlen($this->buffer) > self::MAX_HEAD) {
                throw new BadRequest("the request's headers are too large", 431);
            }
            if (!$this->receive()) {
                return null;
            }
        }
        if ($end > self::MAX_HEAD) {
            throw new BadRequest("the request's headers are too large", 431);
        }
        $head = new Head(substr($this->take($end + 4), 0, -4));
        if ($head->length > $this->maxBody) {
            throw $this->tooLarge();
        }
        return $head;
    }

    public function body(Head $head): string
    {
        return $head->length === null ? $this->chunks() : $this->need($head->length);
    }

    private function chunks(): string
    {
        $body = '';
        while (true) {
            if (!preg_match('/\A([0-9a-f]{1,8})[ \t]*(?:;.*)?\z/i', $this->line(), $match)) {
                throw new BadRequest('a chunk does not begin with its size');
            }
            $size = hexdec($match[1]);
            if ($size === 0) {
                break;
            }
            if (strlen($body) + $size > $this->maxBody) {
                throw $this->tooLarge();
            }
            $body .= $this->need($size);
            if ($this->need(2) !== "\r\n") {
                throw new BadRequest('a chunk is longer than its size says');
            }
        }
        while ($this->line() !== '') {
            continue; // trailers mean nothing to a function
        }
        return $body;
    }

    private function line(): string
    {
        while (($end = strpos($this->buffer, "\r\n")) === false) {
            if (strlen($this->buffer) > self::MAX_HEAD) {
                throw new BadRequest('a line between chunks is too long');
            }
            $this->receive() || throw new Disconnected();
        }
        return substr($this->take($end + 2), 0, -2);
    }

    private function need(int $size): string
    {
        while (strlen($this->buffer) < $size) {
            $this->receive() || throw new Disconnected();
        }
        return $this->take($size);
    }

    private function take(int $size): string
    {
        $taken = substr($this->buffer, 0, $size);
        $this->buffer = substr($this->buffer, $size);
        return $taken;
    }

    private function receive(): bool
    {
        $data = Sockets::receive($this->socket);
        $this->buffer .= $data;
        return $data !== '';
    }

    private function tooLarge(): BadRequest
    {
        return new BadRequest("the request body is over {$this->maxBody} bytes", 413);
    }
}
