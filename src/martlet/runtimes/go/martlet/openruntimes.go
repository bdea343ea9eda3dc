package martlet

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/open-runtimes/types-for-go/v4/openruntimes"
)

const (
	reserved         = "X-Open-Runtimes-"
	returnMissing    = "Return statement missing. return context.res.empty() if no response is expected."
	wrongSecret      = `Unauthorized. Provide correct "x-open-runtimes-secret" header.`
	wrongTimeout     = `Header "x-open-runtimes-timeout" must be an integer greater than 0.`
	executionTimeout = "Execution timed out."
)

// openRuntimes serves a function written for Open Runtimes.
func openRuntimes(handler func(openruntimes.Context) openruntimes.Response) responder {
	return func(w *recorder, r *http.Request) {
		if maintenance(w, r) {
			return
		}
		stamp(w, r)
		timeout, err := terms(r)
		if err != nil {
			plainError(w, err.Error())
			return
		}
		request := contextOf(r)
		response, done := within(timeout, func() openruntimes.Response { return handler(request) })
		if !done {
			emit(os.Stderr, idOf(r.Context()), "error", executionTimeout)
			w.Header().Set("Connection", "close")
			plainError(w, executionTimeout)
			syscall.Kill(os.Getpid(), syscall.SIGTERM) // nothing else ends what still runs
			return
		}
		if err := sendOpenRuntimes(w, r, response); err != nil {
			failWith(r.Context(), w, err)
		}
	}
}

func maintenance(w http.ResponseWriter, r *http.Request) bool {
	switch r.URL.Path {
	case "/__opr/health":
		fmt.Fprint(w, "OK")
	case "/__opr/timings":
		fmt.Fprintf(w, "startup=%.6f", startup.Seconds())
	default:
		return false
	}
	return true
}

// stamp answers the id of the log, where the client speaks of Open Runtimes at all.
func stamp(w http.ResponseWriter, r *http.Request) {
	for name := range r.Header {
		if strings.HasPrefix(name, reserved) {
			id := r.Header.Get(reserved + "Log-Id")
			if id == "" {
				id = rand.Text()
			}
			w.Header().Set(reserved+"Log-Id", id)
			return
		}
	}
}

// terms returns how long a request may take (0: there is no bound), or why it must not be run.
func terms(r *http.Request) (time.Duration, error) {
	timeout := 0
	if text := r.Header.Get(reserved + "Timeout"); text != "" {
		seconds, err := strconv.Atoi(text)
		if err != nil || seconds <= 0 {
			return 0, errors.New(wrongTimeout)
		}
		timeout = seconds
	}
	expected, given := os.Getenv("OPEN_RUNTIMES_SECRET"), r.Header.Get(reserved+"Secret")
	if expected != "" && subtle.ConstantTimeCompare([]byte(given), []byte(expected)) == 0 {
		return 0, errors.New(wrongSecret)
	}
	return time.Duration(timeout) * time.Second, nil
}

func plainError(w *recorder, message string) {
	w.Header().Set("Content-Type", textType)
	w.WriteHeader(http.StatusInternalServerError)
	fmt.Fprint(w, message)
}

// within calls work and waits for it, no longer than the timeout (0: as long as it takes). A panic of work goes on here.
func within(timeout time.Duration, work func() openruntimes.Response) (openruntimes.Response, bool) {
	if timeout == 0 {
		return work(), true
	}
	type outcome struct {
		response openruntimes.Response
		panicked any
	}
	outcomes := make(chan outcome, 1)
	go func() {
		var result outcome
		defer func() {
			result.panicked = recover()
			outcomes <- result
		}()
		result.response = work()
	}()
	select {
	case result := <-outcomes:
		if result.panicked != nil {
			panic(result.panicked)
		}
		return result.response, true
	case <-time.After(timeout):
		return openruntimes.Response{}, false
	}
}

func contextOf(r *http.Request) openruntimes.Context {
	request := openruntimes.ContextRequest{
		Method:      r.Method,
		Scheme:      r.Header.Get("X-Forwarded-Proto"),
		Host:        r.Header.Get("X-Forwarded-Host"),
		Path:        r.URL.Path,
		QueryString: r.URL.RawQuery,
		Query:       map[string]string{},
		Headers:     map[string]string{"host": r.Host},
	}
	request.SetBodyBinary(readBody(r))
	for name, values := range r.URL.Query() {
		request.Query[name] = values[0]
	}
	for name, values := range r.Header {
		if !strings.HasPrefix(name, reserved) {
			request.Headers[strings.ToLower(name)] = strings.Join(values, ", ")
		}
	}
	locate(&request, r)
	logging := r.Header.Get(reserved + "Logging")
	return openruntimes.NewContext(request, logger(r.Context(), logging == "" || logging == "enabled"))
}

// locate fills in where the request was sent to.
func locate(request *openruntimes.ContextRequest, r *http.Request) {
	if request.Scheme == "" {
		request.Scheme = "http"
	}
	if request.Host == "" {
		request.Host = r.Host
	}
	request.Port = map[string]int{"http": 80, "https": 443}[request.Scheme]
	authority := request.Host
	if host, port, err := net.SplitHostPort(request.Host); err == nil {
		request.Host = host
		if number, err := strconv.Atoi(port); err == nil {
			request.Port = number
		}
	}
	request.Url = request.Scheme + "://" + authority + r.URL.RequestURI()
}

func logger(ctx context.Context, enabled bool) func(level, text string) {
	return func(level, text string) {
		if enabled {
			emit(os.Stderr, idOf(ctx), level, text)
		}
	}
}

func sendOpenRuntimes(w *recorder, r *http.Request, answered openruntimes.Response) error {
	if answered.StatusCode == 0 {
		return errors.New(returnMissing)
	}
	response := Response{Status: answered.StatusCode, Header: http.Header{}, Body: answered.Body}
	if answered.Body == nil {
		response.Body = []byte{}
	}
	for name, value := range answered.Headers {
		if strings.HasPrefix(strings.ToLower(name), strings.ToLower(reserved)) {
			continue
		}
		if strings.EqualFold(name, "content-type") {
			value = withCharset(value)
		}
		response.Header.Add(name, value)
	}
	if response.Header.Get("Content-Type") == "" && len(answered.Body) > 0 {
		response.Header.Set("Content-Type", textType)
	}
	return send(w, r, response)
}

func withCharset(contentType string) string {
	lower := strings.ToLower(contentType)
	isText := strings.HasPrefix(lower, "text/") || strings.HasPrefix(lower, "application/json")
	if isText && !strings.Contains(lower, "charset=") {
		return contentType + "; charset=utf-8"
	}
	return contentType
}
