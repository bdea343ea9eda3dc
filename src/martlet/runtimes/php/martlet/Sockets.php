<?php

declare(strict_types=1);

namespace Martlet;

/** The peer went away before the request or the response was complete. */
final class Disconnected extends \Exception
{
}

/** The calls of the C library that sockets need which came as descriptors. */
final class Sockets
{
    private const RECEIVE = 65536;
    private const INTERRUPTED = 4;
    private const NO_SIGNAL = 0x4000;
    private const CLOSE_ON_EXEC = 0x80000;
    private const READABLE = 1;

    private static \FFI $libc;
    private static \FFI\CData $buffer;
    private static \FFI\CData $noSignals;

    public static function prepare(): void
    {
        self::$libc = \FFI::cdef('
            struct pollfd { int fd; short events; short revents; };
            int accept4(int, void *, void *, int);
            ssize_t recv(int, void *, size_t, int);
            ssize_t send(int, const char *, size_t, int);
            ssize_t write(int, const char *, size_t);
            int ppoll(struct pollfd *, unsigned long, void *, void *);
            int fcntl(int, int, int);
            int close(int);
            int *__errno_location(void);
        ');
        self::$buffer = self::$libc->new('char[' . self::RECEIVE . ']');
        self::$noSignals = self::$libc->new('unsigned long[16]');
    }

    /** Lets accept return at once where another process has taken the connection. */
    public static function unblock(int $listener): void
    {
        self::$libc->fcntl($listener, 4, 2048); // F_SETFL, O_NONBLOCK
    }

    /** Returns a connection, or null where another process was faster. */
    public static function accept(int $listener): ?int
    {
        $socket = self::$libc->accept4($listener, null, null, self::CLOSE_ON_EXEC);
        return $socket < 0 ? null : $socket;
    }

    /**
     * Waits until some of the descriptors can be read, and returns those; none where a signal came.
     *
     * Signals that the process blocks are let in here only.
     */
    public static function wait(array $descriptors): array
    {
        $count = count($descriptors);
        $polled = self::$libc->new("struct pollfd[{$count}]");
        foreach ($descriptors as $i => $descriptor) {
            $polled[$i]->fd = $descriptor;
            $polled[$i]->events = self::READABLE;
        }
        $found = self::$libc->ppoll(\FFI::addr($polled[0]), $count, null, self::$noSignals);
        if ($found < 0) {
            return [];
        }
        return array_values(array_filter($descriptors, fn (int $i) => $polled[$i]->revents !== 0, ARRAY_FILTER_USE_KEY));
    }

    /** Returns what has come; '' where the peer has closed. */
    public static function receive(int $socket): string
    {
        do {
            $size = self::$libc->recv($socket, self::$buffer, self::RECEIVE, 0);
        } while ($size < 0 && self::errno() === self::INTERRUPTED);
        return $size > 0 ? \FFI::string(self::$buffer, $size) : '';
    }

    public static function send(int $socket, string $data): void
    {
        while (true) {
            $sent = self::$libc->send($socket, $data, strlen($data), self::NO_SIGNAL);
            if ($sent === strlen($data)) {
                return;
            }
            if ($sent >= 0) {
                $data = substr($data, $sent);
            } elseif (self::errno() !== self::INTERRUPTED) {
                throw new Disconnected();
            }
        }
    }

    /** Writes a line, once, to a descriptor that is no socket, and closes it. */
    public static function say(int $descriptor, string $line): void
    {
        self::write($descriptor, "{$line}\n");
        self::close($descriptor);
    }

    /** Writes; what cannot be written is lost. */
    public static function write(int $descriptor, string $data): void
    {
        self::$libc->write($descriptor, $data, strlen($data));
    }

    public static function close(int $descriptor): void
    {
        self::$libc->close($descriptor);
    }

    private static function errno(): int
    {
        return self::$libc->__errno_location()[0];
    }
}

Sockets::prepare();
