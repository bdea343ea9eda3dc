<?php

declare(strict_types=1);

namespace Martlet;

/** The code has no such handler. */
final class HandlerNotFound extends \Exception
{
}

/** Finds the user's function: which file to load, and what in it to call. */
final class Loader
{
    private const FILES = ['handler.php', 'index.php', 'src/index.php', 'main.php', 'src/main.php', 'function.php', 'app.php'];
    private const NAMES = ['handle', 'handler', 'main'];

    /** Makes the process the function's own, loads its code, and returns what to call with a request. */
    public static function load(array $spec): callable
    {
        chdir($spec['code']);
        set_include_path($spec['code']);
        $given = ['MARTLET_FUNCTION' => $spec['function'], 'MARTLET_REVISION' => (string) $spec['revision']] + $spec['environment'];
        foreach ($given as $name => $value) {
            putenv("{$name}={$value}");
            $_ENV[$name] = $_SERVER[$name] = $value;
        }
        if (isset($given['TZ'])) {
            date_default_timezone_set($given['TZ']);
        }
        if (is_file('vendor/autoload.php')) {
            require_once "{$spec['code']}/vendor/autoload.php";
        }
        [$file, $names] = self::locate($spec['handler']);
        $returned = self::include("{$spec['code']}/{$file}");
        foreach ([$returned, ...$names] as $candidate) {
            if (is_callable($candidate)) {
                return $candidate;
            }
        }
        throw new HandlerNotFound("{$file} has no function {$names[0]}(\$request), and returns none");
    }

    private static function include(string $path): mixed
    {
        return require $path;
    }

    /** `handle`, `file`, `file.php`, `file:function`, `file.function`, `function`, `Class::method`. */
    private static function locate(string $handler): array
    {
        if ($handler === 'handle') {
            return [self::usualFile(), self::NAMES];
        }
        $spellings = [[$handler, self::NAMES]];
        if (preg_match('/\A([^:]+):([^:].*)\z/', $handler, $match) || preg_match('/\A(.+)\.([^.]+)\z/', $handler, $match)) {
            $spellings[] = [$match[1], [$match[2]]];
        }
        foreach ($spellings as [$file, $names]) {
            foreach ([$file, "{$file}.php"] as $path) {
                if (str_ends_with($path, '.php') && is_file($path)) {
                    return [$path, $names];
                }
            }
        }
        return [self::usualFile(), [$handler]];
    }

    private static function usualFile(): string
    {
        $all = glob('*.php');
        foreach ([...self::FILES, ...(count($all) === 1 ? $all : [])] as $path) {
            if (is_file($path)) {
                return $path;
            }
        }
        throw new HandlerNotFound('there is none of ' . implode(', ', self::FILES) . '; name the file in `handler`');
    }
}
