<?php

declare(strict_types=1);

namespace Martlet;

/** What the function prints, and PHP's own messages, as frames that say which request they belong to. */
final class Logs
{
    private const FRAME = 4096; // bytes a pipe takes without mixing them with another writer's
    private const LEVELS = [
        E_WARNING => 'warning', E_USER_WARNING => 'warning', E_USER_ERROR => 'error', E_RECOVERABLE_ERROR => 'error',
    ];

    public static ?string $request = null;
    private static string $unfinished = '';

    public static function install(): void
    {
        ob_start(self::print(...), 1);
        set_error_handler(self::report(...));
    }

    /** Writes what has no line end yet as a line of its own. */
    public static function flush(): void
    {
        if (self::$unfinished !== '') {
            self::emit(1, 'stdout', self::$unfinished);
            self::$unfinished = '';
        }
    }

    /** Writes text as frames. */
    public static function emit(int $descriptor, string $stream, string $text): void
    {
        $head = sprintf("\x1e{\"t\":%.3F,\"id\":%s,\"s\":\"%s\",\"m\":", microtime(true), Response::json(self::$request), $stream);
        $text = Http1::scrub($text);
        $room = self::FRAME - strlen($head) - 2;
        do {
            $piece = self::cut($text, $room);
            while (strlen($json = Response::json($piece)) > $room) {
                $piece = self::cut($piece, intdiv(strlen($piece), 2));
            }
            Sockets::write($descriptor, "{$head}{$json}}\n");
            $text = substr($text, strlen($piece));
        } while ($text !== '');
    }

    /** The first so many bytes of a text, without a character that would be cut. */
    private static function cut(string $text, int $size): string
    {
        while ($size < strlen($text) && (ord($text[$size]) & 0xC0) === 0x80) {
            $size--;
        }
        return substr($text, 0, $size);
    }

    private static function print(string $data): string
    {
        $lines = explode("\n", self::$unfinished . $data);
        self::$unfinished = array_pop($lines);
        foreach ($lines as $line) {
            self::emit(1, 'stdout', $line);
        }
        if (strlen(self::$unfinished) >= self::FRAME) {
            self::flush();
        }
        return '';
    }

    private static function report(int $level, string $message, string $file, int $line): bool
    {
        if (error_reporting() & $level) {
            self::emit(2, self::LEVELS[$level] ?? 'info', "{$message} in {$file}:{$line}");
        }
        return true;
    }
}
