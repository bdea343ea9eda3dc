// Package martlet serves a function written in Go.
//
// A program hands its handler to Run, which speaks HTTP/1.1 on the socket that the platform has opened (descriptor 3)
// and says on descriptor 4 when it is ready.
package martlet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime/debug"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/open-runtimes/types-for-go/v4/openruntimes"
)

const (
	listenerDescriptor = 3
	answerDescriptor   = 4
)

// Handler is what may be served: the standard library's handler, a function from a request to what is answered, or the
// entry point of Open Runtimes.
type Handler interface {
	func(http.ResponseWriter, *http.Request) | http.HandlerFunc |
		func(*Request) any |
		func(*Request) (any, error) |
		func(*Request) *Response |
		func(*Request) (*Response, error) |
		func(openruntimes.Context) openruntimes.Response
}

// This package is initialised before the user's: what lies between is the time that the user's takes.
var loading = time.Now()

var startup time.Duration

// Run serves requests with the handler until SIGTERM, finishes those that run, and ends the process.
func Run[H Handler](handler H) {
	startup = time.Since(loading)
	signal.Ignore(syscall.SIGPIPE) // a log that nobody reads any more must not end the process
	terminated := make(chan os.Signal, 1)
	signal.Notify(terminated, syscall.SIGTERM)
	if memory, err := strconv.ParseInt(os.Getenv("MARTLET_MEMORY"), 10, 64); err == nil {
		debug.SetMemoryLimit(memory / 10 * 9)
	}
	concurrency, _ := strconv.Atoi(os.Getenv("MARTLET_CONCURRENCY"))
	maxBody, _ := strconv.ParseInt(os.Getenv("MARTLET_MAX_BODY"), 10, 64)
	installLogs(concurrency)

	file := os.NewFile(listenerDescriptor, "listener")
	listener, err := net.FileListener(file)
	if err != nil {
		answer(map[string]any{"error": map[string]string{"type": "OSError", "message": err.Error(), "traceback": ""}})
		os.Exit(1)
	}
	file.Close()
	if code := os.Getenv("MARTLET_CODE"); code != "" {
		os.Chdir(code)
	}

	connections := &unused{set: map[net.Conn]struct{}{}}
	server := &http.Server{
		Handler:                      &root{respond: adapt(handler), maxBody: maxBody},
		ConnState:                    connections.note,
		DisableGeneralOptionsHandler: true,
	}
	ended := make(chan struct{})
	go func() {
		<-terminated
		connections.close()
		server.Shutdown(context.Background())
		close(ended)
	}()
	answer(map[string]any{"mode": "handler", "load_ms": float64(startup.Microseconds()) / 1000})
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	<-ended
}

func answer(document map[string]any) {
	line, _ := json.Marshal(document)
	file := os.NewFile(answerDescriptor, "answer")
	file.Write(append(line, '\n'))
	file.Close()
}

// responder answers one request; a panic of the handler passes through it.
type responder func(w *recorder, r *http.Request)

func adapt(handler any) responder {
	switch handler := handler.(type) {
	case func(http.ResponseWriter, *http.Request):
		return func(w *recorder, r *http.Request) { handler(w, r) }
	case http.HandlerFunc:
		return func(w *recorder, r *http.Request) { handler(w, r) }
	case func(*Request) any:
		return native(func(request *Request) (any, error) { return handler(request), nil })
	case func(*Request) (any, error):
		return native(handler)
	case func(*Request) *Response:
		return native(func(request *Request) (any, error) { return handler(request), nil })
	case func(*Request) (*Response, error):
		return native(func(request *Request) (any, error) { return handler(request) })
	case func(openruntimes.Context) openruntimes.Response:
		return openRuntimes(handler)
	default:
		panic(fmt.Sprintf("martlet.Run: %T cannot be served", handler))
	}
}

// root tells requests of the platform from invocations, and turns what goes wrong into a response.
type root struct {
	respond responder
	maxBody int64
}

func (h *root) ServeHTTP(writer http.ResponseWriter, r *http.Request) {
	writer.Header()["Date"] = nil // the gateway's business
	if internal(writer, r) {
		return
	}
	if r.ContentLength > h.maxBody {
		tooLarge(writer, h.maxBody)
		return
	}
	r.Body = http.MaxBytesReader(writer, r.Body, h.maxBody)
	ctx, cancel := requestContext(r)
	defer cancel()
	w := &recorder{ResponseWriter: writer}
	defer h.recover(w, ctx)
	h.respond(w, r.WithContext(ctx))
}

func (h *root) recover(w *recorder, ctx context.Context) {
	value := recover()
	if value == nil {
		return
	}
	err, isError := value.(error)
	var overflow *http.MaxBytesError
	switch {
	case errors.Is(err, http.ErrAbortHandler):
		panic(value)
	case !w.started && errors.As(err, &overflow):
		tooLarge(w, h.maxBody)
	case isError:
		fail(ctx, w, typeName(err), err.Error(), userFrames(debug.Stack()))
	default:
		fail(ctx, w, "panic", fmt.Sprint(value), userFrames(debug.Stack()))
	}
}

// internal answers what the platform itself asks.
func internal(w http.ResponseWriter, r *http.Request) bool {
	const prefix = "/_martlet/"
	switch {
	case len(r.URL.Path) < len(prefix) || r.URL.Path[:len(prefix)] != prefix:
		return false
	case r.URL.Path == prefix+"health" && r.Method == http.MethodGet:
		document(w, http.StatusOK, "application/json", map[string]string{"status": "ok"})
	default:
		missing := map[string]string{"type": "NotFound", "message": "there is no " + r.URL.Path}
		document(w, http.StatusNotFound, "application/json", map[string]any{"error": missing})
	}
	return true
}

func tooLarge(w http.ResponseWriter, most int64) {
	w.Header().Set("Connection", "close")
	w.Header().Set("Content-Type", "text/plain")
	w.WriteHeader(http.StatusRequestEntityTooLarge)
	fmt.Fprintf(w, "the request body is over %d bytes", most)
}

// document sends a whole JSON document.
func document(w http.ResponseWriter, status int, contentType string, value any) {
	body, _ := json.Marshal(value)
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	w.Write(body)
}

// unused knows the connections that have not carried a request: Shutdown would wait for one for seconds.
type unused struct {
	sync.Mutex
	set map[net.Conn]struct{}
}

func (u *unused) note(connection net.Conn, state http.ConnState) {
	u.Lock()
	defer u.Unlock()
	if state == http.StateNew {
		u.set[connection] = struct{}{}
	} else {
		delete(u.set, connection)
	}
}

func (u *unused) close() {
	u.Lock()
	defer u.Unlock()
	for connection := range u.set {
		connection.Close()
	}
}
