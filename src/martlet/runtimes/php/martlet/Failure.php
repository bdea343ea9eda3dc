<?php

declare(strict_types=1);

namespace Martlet;

/** What people are told when their code throws, dies or exits. */
final class Failure
{
    private const MESSAGE_BYTES = 4096;
    private const FATAL = E_ERROR | E_PARSE | E_CORE_ERROR | E_COMPILE_ERROR | E_RECOVERABLE_ERROR;

    /** Answers the request that runs; null where none does. */
    public static ?\Closure $answer = null;
    private static bool $loading = true;

    /** Sees to it that nobody waits in vain where PHP ends the process: after a fatal error, and by exit() or die(). */
    public static function guard(): void
    {
        register_shutdown_function(function (): void {
            $error = error_get_last();
            $fatal = $error !== null && $error['type'] & self::FATAL;
            $failure = $fatal
                ? ['type' => 'FatalError', 'message' => $error['message'], 'traceback' => "{$error['message']} in {$error['file']}:{$error['line']}"]
                : ['type' => 'Exit', 'message' => 'the code called exit() or die(): return what is to be answered', 'traceback' => ''];
            if (self::$loading) {
                self::answerLoad($failure);
            }
            if (self::$answer !== null) {
                Logs::emit(2, 'error', $failure['traceback'] ?: $failure['message']);
                $fatal && (self::$answer)($failure);
            }
        });
    }

    /** The code is loaded: from here on what ends the process ends a request. */
    public static function loaded(): void
    {
        self::$loading = false;
    }

    /** Says that the code did not load, and ends. */
    public static function answerLoad(array $failure): never
    {
        self::$loading = false;
        Sockets::say(4, json_encode(['error' => $failure], JSON_UNESCAPED_UNICODE | JSON_INVALID_UTF8_SUBSTITUTE));
        exit(1);
    }

    /** An exception in words, without the platform's own frames. */
    public static function describe(\Throwable $error): array
    {
        return [
            'type' => self::type($error),
            'message' => Http1::scrub(substr($error->getMessage(), 0, self::MESSAGE_BYTES)),
            'traceback' => self::traceback($error),
        ];
    }

    /** All of the response to a request whose handler threw. The traceback goes to the log. */
    public static function respond(\Throwable $error, Head $head): string
    {
        if ($error instanceof BadJson) {
            return self::badJson($error, $head);
        }
        $failure = self::describe($error);
        Logs::emit(2, 'error', $failure['traceback']);
        return self::response($failure, $head);
    }

    public static function response(array $failure, Head $head): string
    {
        $lines = Http1::headerLines(['content-type' => Response::JSON, 'x-martlet-error' => $failure['type']]);
        unset($failure['traceback']);
        return Http1::whole($head, 500, $lines, Response::json($failure));
    }

    private static function type(\Throwable $error): string
    {
        return preg_replace('/\AMartlet\\\\/', '', $error::class);
    }

    private static function traceback(\Throwable $error): string
    {
        $text = self::type($error) . ": {$error->getMessage()}";
        if (!str_starts_with($error->getFile(), OURS)) {
            $text .= "\n    in {$error->getFile()}:{$error->getLine()}";
        }
        foreach ($error->getTrace() as $frame) {
            $file = $frame['file'] ?? OURS;
            if (!str_starts_with($file, OURS)) {
                $name = ($frame['class'] ?? '') . ($frame['type'] ?? '') . $frame['function'];
                $text .= "\n    from {$file}:{$frame['line']}: {$name}()";
            }
        }
        $previous = $error->getPrevious();
        return $previous === null ? $text : "{$text}\nCaused by " . self::traceback($previous);
    }

    private static function badJson(BadJson $error, Head $head): string
    {
        $lines = Http1::headerLines(['content-type' => 'application/problem+json']);
        return Http1::whole($head, 400, $lines, Response::json([
            'type' => 'about:blank', 'status' => 400, 'code' => 'bad_json',
            'title' => 'The request body is not JSON', 'detail' => $error->getMessage(),
            'request_id' => $head->fields['x-request-id'] ?? null,
        ]));
    }
}
