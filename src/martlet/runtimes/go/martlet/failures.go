package martlet

import (
	"context"
	"errors"
	"net/http"
	"os"
	"reflect"
	"strings"
)

// Longest message that travels in an answer; the log has all of it.
const messageBytes = 4096

// failWith answers for an error that a handler returned.
func failWith(ctx context.Context, w *recorder, err error) {
	var bad *BadJSON
	var overflow *http.MaxBytesError
	switch {
	case !w.started && errors.As(err, &overflow):
		tooLarge(w, overflow.Limit)
	case !w.started && errors.As(err, &bad):
		document(w, http.StatusBadRequest, "application/problem+json", map[string]any{
			"type": "about:blank", "status": 400, "code": "bad_json",
			"title": "The request body is not JSON", "detail": bad.Error(),
			"request_id": idOf(ctx),
		})
	default:
		fail(ctx, w, typeName(err), err.Error(), "")
	}
}

// fail logs what went wrong and answers 500; where a response is under way, the connection is cut instead.
func fail(ctx context.Context, w *recorder, kind, message, frames string) {
	emit(os.Stderr, idOf(ctx), "error", strings.TrimSuffix(kind+": "+message+"\n"+frames, "\n"))
	if w.started {
		panic(http.ErrAbortHandler)
	}
	clear(w.Header())
	w.Header()["Date"] = nil
	w.Header().Set("X-Martlet-Error", kind)
	if len(message) > messageBytes {
		message = strings.ToValidUTF8(message[:messageBytes], "")
	}
	document(w, http.StatusInternalServerError, "application/json", map[string]string{"type": kind, "message": message})
}

// typeName is what an error's type is called; what errors.New and fmt.Errorf make is just an error.
func typeName(err error) string {
	kind := reflect.TypeOf(err)
	if kind.Kind() == reflect.Pointer {
		kind = kind.Elem()
	}
	switch name := kind.String(); {
	case name == "errors.errorString", strings.HasPrefix(name, "fmt.wrapError"), kind.Name() == "":
		return "error"
	default:
		return name
	}
}

// userFrames keeps what of a panic's stack is not ours: from the panic to the call of the handler.
func userFrames(stack []byte) string {
	lines := strings.Split(string(stack), "\n")
	var frames []string
	inside := false
	for i := 1; i+1 < len(lines); i += 2 { // a function, then its file
		switch {
		case strings.HasPrefix(lines[i], "panic("):
			inside, frames = true, nil
		case inside && (strings.HasPrefix(lines[i], "martlet.adapt") || strings.HasPrefix(lines[i], "martlet.native")):
			return strings.Join(frames, "\n")
		case inside:
			frames = append(frames, lines[i], lines[i+1])
		}
	}
	return strings.Join(frames, "\n")
}
