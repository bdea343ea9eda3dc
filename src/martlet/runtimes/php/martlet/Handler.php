<?php

declare(strict_types=1);

namespace Martlet;

/** Answers a request with what the user's function returns for it. */
final class Handler
{
    private readonly \Closure $function;

    public function __construct(callable $function)
    {
        $this->function = $function(...);
    }

    /** Answers one request by giving $send bytes. Returns whether the connection may go on. */
    public function answer(Head $head, string $body, \Closure $send): bool
    {
        $terms = new Terms($head->fields);
        $send = self::stamped($terms->stamp(), $send);
        try {
            $request = new Request($head, $terms->others, $body);
            $response = OpenRuntimes::own($head) ?? $terms->call($this->function, $request);
            if ($response->streamed()) {
                return $this->stream($head, $response, $send);
            }
            [$bytes, $type] = $response->encode();
            $data = Http1::whole($head, $response->status, $response->lines($type), $bytes);
        } catch (Disconnected $error) {
            throw $error;
        } catch (\Throwable $error) {
            $data = Failure::respond($error, $head);
        }
        Logs::flush(); // before its response ends: whoever has that may look for it
        $send($data);
        return $head->keepAlive;
    }

    /** Sends with a further line in the head of the response. */
    private static function stamped(string $line, \Closure $send): \Closure
    {
        if ($line === '') {
            return $send;
        }
        return function (string $data) use (&$line, $send): void {
            if ($line !== '') {
                [$status, $rest] = explode("\r\n", $data, 2);
                $data = "{$status}\r\n{$line}{$rest}";
                $line = '';
            }
            $send($data);
        };
    }

    /** Sends the pieces as they come. What is thrown before the first one still becomes a 500. */
    private function stream(Head $head, Response $response, \Closure $send): bool
    {
        $keepAlive = $head->chunks && $head->keepAlive;
        $coding = $head->chunks ? "transfer-encoding: chunked\r\n" : '';
        $begin = fn (?string $type) => $send(Http1::start($response->status, $response->lines($type) . $coding, $keepAlive));
        $started = false;
        try {
            foreach ($response->pieces() as $piece) {
                $started || $begin(Response::typeOf($piece));
                $started = true;
                if ($head->method === 'HEAD') {
                    break;
                }
                $piece === '' || $send($head->chunks ? Http1::chunk($piece) : $piece);
            }
            $started || $begin(null);
            Logs::flush();
            $head->chunks && $head->method !== 'HEAD' && $send("0\r\n\r\n");
        } catch (Disconnected) {
            return false;
        } catch (\Throwable $error) {
            if (!$started) {
                throw $error;
            }
            Logs::emit(2, 'error', Failure::describe($error)['traceback']);
            return false;
        }
        return $keepAlive;
    }
}
