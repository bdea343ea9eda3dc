<?php

declare(strict_types=1);

namespace Martlet;

/**
 * Serves a listener, one request at a time. Where several may run at once there are as many processes, and one for
 * probes, each with one connection.
 */
final class Server
{
    private const HEALTH = '/_martlet/health';

    /** @var array<int, Reader> by socket */
    private array $readers = [];
    private bool $stopping = false;

    public function __construct(
        private readonly Handler $handler,
        private readonly int $concurrency,
        private readonly int $maxBody,
    ) {
    }

    /** Serves until SIGTERM; the request that runs then is finished. */
    public function run(int $listener): never
    {
        Failure::loaded();
        Sockets::unblock($listener);
        pcntl_sigprocmask(SIG_BLOCK, [SIGTERM]); // it is let in while this process waits, and nowhere else
        pcntl_signal(SIGTERM, fn () => $this->stopping = true, false);
        if ($this->concurrency > 1) {
            (new Workers())->run($this->concurrency + 1, fn () => $this->serve($listener));
        }
        $this->serve($listener);
        exit(0);
    }

    private function serve(int $listener): void
    {
        while (!$this->stopping) {
            $full = $this->concurrency > 1 && $this->readers !== [];
            foreach (Sockets::wait([...($full ? [] : [$listener]), ...array_keys($this->readers)]) as $ready) {
                $ready === $listener ? $this->accept($listener) : $this->exchange($ready);
            }
            pcntl_signal_dispatch();
        }
    }

    private function accept(int $listener): void
    {
        $socket = Sockets::accept($listener);
        if ($socket !== null) {
            $this->readers[$socket] = new Reader($socket, $this->maxBody);
        }
    }

    /** Answers the requests that a connection has sent. */
    private function exchange(int $socket): void
    {
        $reader = $this->readers[$socket];
        try {
            do {
                $head = $reader->head();
                $goesOn = $head !== null && $this->answer($head, $reader->body($head), $socket);
            } while ($goesOn && $reader->begun());
        } catch (BadRequest $error) {
            $goesOn = false;
            try {
                Sockets::send($socket, Http1::problem($error));
            } catch (Disconnected) {
            }
        } catch (Disconnected) {
            $goesOn = false;
        }
        if (!$goesOn) {
            unset($this->readers[$socket]);
            Sockets::close($socket);
        }
    }

    private function answer(Head $head, string $body, int $socket): bool
    {
        $send = fn (string $data) => Sockets::send($socket, $data);
        if (str_starts_with($head->target, '/_martlet/')) {
            $send($this->internal($head));
            return $head->keepAlive;
        }
        $sent = false;
        Logs::$request = $head->fields['x-request-id'] ?? null;
        Failure::$answer = function (array $failure) use ($head, $send, &$sent): void {
            $sent || $send(Failure::response($failure, $head));
        };
        try {
            return $this->handler->answer($head, $body, function (string $data) use ($send, &$sent): void {
                $sent = true;
                $send($data);
            });
        } finally {
            Logs::flush();
            Logs::$request = Failure::$answer = null;
        }
    }

    private function internal(Head $head): string
    {
        $known = $head->method === 'GET' && $head->target === self::HEALTH;
        $missing = ['type' => 'NotFound', 'message' => "there is no {$head->target}"];
        $lines = Http1::headerLines(['content-type' => Response::JSON]);
        return Http1::whole($head, $known ? 200 : 404, $lines, Response::json($known ? ['status' => 'ok'] : ['error' => $missing]));
    }
}

/** Processes that serve the same listener, each with its own memory. They live and die together. */
final class Workers
{
    /** @var list<int> */
    private array $children = [];
    private bool $stopping = false;

    public function run(int $count, \Closure $serve): never
    {
        for ($i = 0; $i < $count; $i++) {
            $child = pcntl_fork();
            if ($child === 0) {
                $serve();
                exit(0);
            }
            $this->children[] = $child;
        }
        pcntl_signal(SIGTERM, fn () => $this->stop(), false);
        pcntl_sigprocmask(SIG_UNBLOCK, [SIGTERM]);
        pcntl_async_signals(true);
        exit($this->wait());
    }

    /** Waits for all of them; returns the exit code of one that ended by itself, and took the others along. */
    private function wait(): int
    {
        $code = 0;
        while (($ended = pcntl_wait($status)) > 0 || pcntl_get_last_error() === PCNTL_EINTR) {
            if ($ended > 0 && !$this->stopping) {
                $code = pcntl_wifexited($status) ? pcntl_wexitstatus($status) : 128 + pcntl_wtermsig($status);
                $this->stop();
            }
        }
        return $code;
    }

    private function stop(): void
    {
        $this->stopping = true;
        array_map(fn (int $child) => posix_kill($child, SIGTERM), $this->children);
    }
}
