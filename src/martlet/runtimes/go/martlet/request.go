package martlet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// Request is one request, its body read.
type Request struct {
	Method      string
	Path        string     // below the function's root, decoded; begins with a slash
	QueryString string     // what follows the question mark, as sent
	Query       url.Values // Query.Get(name) is the first value, Query[name] has all
	Header      http.Header
	Body        []byte

	raw *http.Request
}

// BadJSON is what JSON returns of a body that is not JSON. A handler that returns it answers 400.
type BadJSON struct{ Err error }

func (e *BadJSON) Error() string { return "the request body is not JSON: " + e.Err.Error() }

// Unwrap returns what the parser said.
func (e *BadJSON) Unwrap() error { return e.Err }

func newRequest(r *http.Request) *Request {
	r.Header["Host"] = []string{r.Host}
	return &Request{
		Method:      r.Method,
		Path:        r.URL.Path,
		QueryString: r.URL.RawQuery,
		Query:       r.URL.Query(),
		Header:      r.Header,
		Body:        readBody(r),
		raw:         r,
	}
}

// readBody returns the whole body. One that is too large panics, and so does a client that leaves before its end.
func readBody(r *http.Request) []byte {
	var body []byte
	var err error
	if r.ContentLength < 0 {
		body, err = io.ReadAll(r.Body)
	} else {
		body = make([]byte, r.ContentLength)
		_, err = io.ReadFull(r.Body, body)
	}
	var overflow *http.MaxBytesError
	if errors.As(err, &overflow) {
		panic(overflow)
	} else if err != nil {
		panic(http.ErrAbortHandler)
	}
	return body
}

// Text returns the body as text.
func (r *Request) Text() string { return string(r.Body) }

// JSON decodes the body into what target points at; an empty body leaves it as it is.
func (r *Request) JSON(target any) error {
	if len(r.Body) == 0 {
		return nil
	}
	if err := json.Unmarshal(r.Body, target); err != nil {
		return &BadJSON{err}
	}
	return nil
}

// ID returns the id that the response, the log and the history have.
func (r *Request) ID() string { return r.Header.Get("X-Request-Id") }

// Context ends when the client has left or the function's timeout is over; what is logged with it has the request's id.
func (r *Request) Context() context.Context { return r.raw.Context() }

// Log returns a logger whose lines belong to this request, also in other goroutines.
func (r *Request) Log() *slog.Logger {
	return slog.New(requestLogs{slog.Default().Handler(), r.ID()})
}

// Raw returns the request as the standard library has it.
func (r *Request) Raw() *http.Request { return r.raw }

func (r *Request) String() string { return fmt.Sprintf("%s %s", r.Method, r.Path) }

type requestID struct{}

func requestContext(r *http.Request) (context.Context, context.CancelFunc) {
	id := r.Header.Get("X-Request-Id")
	begin(id)
	ctx := context.WithValue(r.Context(), requestID{}, id)
	stop := context.CancelFunc(func() {})
	if left, err := strconv.ParseInt(r.Header.Get("X-Faas-Deadline"), 10, 64); err == nil {
		ctx, stop = context.WithTimeout(ctx, time.Duration(left)*time.Millisecond)
	}
	return ctx, func() {
		stop()
		end()
	}
}
