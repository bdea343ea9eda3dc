package martlet

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"net"
	"net/http"
	"strconv"
	"strings"
)

const (
	textType  = "text/plain; charset=utf-8"
	bytesType = "application/octet-stream"
)

// Response is an answer with a status and headers of its own.
//
// Body is sent as a handler's plain result is: a string as text, []byte as bytes, nil as nothing, an iter.Seq of string or
// []byte and an io.Reader as a stream, everything else as JSON. Status 0 means 200, or 204 where there is no body.
type Response struct {
	Status int
	Header http.Header
	Body   any
}

func native(handler func(*Request) (any, error)) responder {
	return func(w *recorder, r *http.Request) {
		result, err := handler(newRequest(r))
		if err == nil {
			err = send(w, r, result)
		}
		if err != nil {
			failWith(r.Context(), w, err)
		}
	}
}

func send(w *recorder, r *http.Request, result any) error {
	response := Response{Body: result}
	switch result := result.(type) {
	case *Response:
		if result == nil {
			result = &Response{}
		}
		response = *result
	case Response:
		response = result
	}
	if response.Status == 0 {
		response.Status = http.StatusOK
		if response.Body == nil {
			response.Status = http.StatusNoContent
		}
	}
	if response.Status < 200 || response.Status > 599 {
		return fmt.Errorf("%d is not an HTTP status (200 to 599)", response.Status)
	}
	if err := copyHeader(w.Header(), response.Header); err != nil {
		return err
	}
	return response.write(w, r)
}

func (response *Response) write(w *recorder, r *http.Request) error {
	switch body := response.Body.(type) {
	case nil:
		response.whole(w, "", nil)
	case string:
		response.whole(w, textType, []byte(body))
	case []byte:
		response.whole(w, bytesType, body)
	case iter.Seq[string]:
		pieces(response, w, r, textType, body)
	case iter.Seq[[]byte]:
		pieces(response, w, r, bytesType, body)
	case func(func(string) bool):
		pieces(response, w, r, textType, body)
	case func(func([]byte) bool):
		pieces(response, w, r, bytesType, body)
	case io.Reader:
		return response.copy(w, r, body)
	default:
		var text bytes.Buffer
		encoder := json.NewEncoder(&text)
		encoder.SetEscapeHTML(false)
		if err := encoder.Encode(body); err != nil {
			return err
		}
		response.whole(w, "application/json", bytes.TrimSuffix(text.Bytes(), []byte("\n")))
	}
	return nil
}

func (response *Response) start(w *recorder, contentType string) {
	if contentType != "" && w.Header().Get("Content-Type") == "" {
		w.Header().Set("Content-Type", contentType)
	}
	w.WriteHeader(response.Status)
}

func (response *Response) whole(w *recorder, contentType string, body []byte) {
	if response.Status == http.StatusNoContent || response.Status == http.StatusNotModified {
		w.WriteHeader(response.Status)
		return
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	response.start(w, contentType)
	w.Write(body)
}

// pieces streams. Nothing is sent before the first piece, so that a panic until then still becomes a 500.
func pieces[T string | []byte](response *Response, w *recorder, r *http.Request, contentType string, body iter.Seq[T]) {
	for piece := range body {
		if !w.started {
			response.start(w, contentType)
		}
		if r.Method == http.MethodHead {
			break
		}
		if _, err := w.Write([]byte(piece)); err != nil {
			return // the client has left
		}
		w.Flush()
	}
	if !w.started {
		response.start(w, contentType)
	}
}

func (response *Response) copy(w *recorder, r *http.Request, body io.Reader) error {
	if closer, ok := body.(io.Closer); ok {
		defer closer.Close()
	}
	buffer := make([]byte, 64*1024)
	for {
		n, err := body.Read(buffer)
		if err != nil && err != io.EOF {
			return err
		}
		if !w.started {
			response.start(w, bytesType)
		}
		if n > 0 && r.Method != http.MethodHead {
			if _, err := w.Write(buffer[:n]); err != nil {
				return nil // the client has left
			}
			w.Flush()
		}
		if err == io.EOF || r.Method == http.MethodHead {
			return nil
		}
	}
}

// copyHeader refuses what would end a header's line; how the body is framed is not the handler's to say.
func copyHeader(to, from http.Header) error {
	for name, values := range from {
		switch strings.ToLower(name) {
		case "connection", "content-length", "keep-alive", "transfer-encoding":
			continue
		}
		for _, value := range values {
			if !isToken(name) || strings.ContainsAny(value, "\r\n\x00") {
				return fmt.Errorf("%q: %q cannot be sent as a header", name, value)
			}
			to.Add(name, value)
		}
	}
	return nil
}

func isToken(name string) bool {
	for _, char := range []byte(name) {
		letter := char|0x20 >= 'a' && char|0x20 <= 'z' || char >= '0' && char <= '9'
		if !letter && !strings.ContainsRune("!#$%&'*+-.^_`|~", rune(char)) {
			return false
		}
	}
	return name != ""
}

// recorder knows whether any of a response has been sent, so that it is too late for another one.
type recorder struct {
	http.ResponseWriter
	started bool
}

func (w *recorder) WriteHeader(status int) {
	w.started = w.started || status >= 200
	w.ResponseWriter.WriteHeader(status)
}

func (w *recorder) Write(data []byte) (int, error) {
	w.started = true
	return w.ResponseWriter.Write(data)
}

// Flush sends what was written until now.
func (w *recorder) Flush() {
	w.started = true
	http.NewResponseController(w.ResponseWriter).Flush()
}

// Hijack hands over the connection, for WebSockets.
func (w *recorder) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	w.started = true
	return http.NewResponseController(w.ResponseWriter).Hijack()
}

// Unwrap is how http.ResponseController finds what else the writer can do.
func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }
