package function

import (
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"martlet"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

var count atomic.Int64

// Handle does what every runtime's contract function does.
func Handle(request *martlet.Request) (any, error) {
	switch request.Path {
	case "/json":
		return map[string]any{"hello": "world", "unicode": "żółw 🐢", "list": []any{1, 2.5, nil, true}}, nil
	case "/echo":
		header := http.Header{"Content-Type": request.Header["Content-Type"]}
		return &martlet.Response{Header: header, Body: request.Body}, nil
	case "/inspect":
		return inspect(request), nil
	case "/text":
		return "text ✓", nil
	case "/binary":
		body := make([]byte, 256)
		for i := range body {
			body[i] = byte(i)
		}
		return body, nil
	case "/empty":
		return nil, nil
	case "/status":
		return &martlet.Response{Status: 418, Header: http.Header{"X-Colour": {"blue"}}, Body: "teapot"}, nil
	case "/split":
		return &martlet.Response{Header: http.Header{"X-Colour": {"blue\r\nx-split: 1"}}}, nil
	case "/raise":
		return nil, errors.New("the reason ✗")
	case "/crash":
		os.Exit(3)
	case "/sleep":
		milliseconds, err := strconv.Atoi(request.Query.Get("ms"))
		time.Sleep(time.Duration(milliseconds) * time.Millisecond)
		return map[string]int{"slept": milliseconds}, err
	case "/environment":
		greeting, set := os.LookupEnv("GREETING")
		if !set {
			return map[string]any{"GREETING": nil}, nil
		}
		return map[string]string{"GREETING": greeting}, nil
	case "/log":
		fmt.Println("to stdout ✓")
		fmt.Fprintln(os.Stderr, "to stderr")
		slog.WarnContext(request.Context(), "a warning")
		return "logged", nil
	case "/say":
		slog.WarnContext(request.Context(), request.Query.Get("word")+" before")
		time.Sleep(100 * time.Millisecond)
		slog.WarnContext(request.Context(), request.Query.Get("word")+" after")
		return "said", nil
	case "/count":
		return map[string]int64{"count": count.Add(1)}, nil
	case "/stream":
		return stream(), nil
	case "/length":
		return map[string]int{"length": len(request.Body)}, nil
	case "/large":
		return strings.Repeat("x", 5_000_000), nil
	}
	return &martlet.Response{Status: 404, Body: "there is no " + request.Path}, nil
}

func inspect(request *martlet.Request) any {
	query, headers := map[string]string{}, map[string]string{}
	for name := range request.Query {
		query[name] = request.Query.Get(name)
	}
	for name := range request.Header {
		headers[strings.ToLower(name)] = request.Header.Get(name)
	}
	return map[string]any{
		"method": request.Method, "path": request.Path, "query": query, "headers": headers, "length": len(request.Body),
	}
}

func stream() iter.Seq[string] {
	return func(yield func(string) bool) {
		if yield("one\n") {
			time.Sleep(300 * time.Millisecond)
			yield("two\n")
		}
	}
}
