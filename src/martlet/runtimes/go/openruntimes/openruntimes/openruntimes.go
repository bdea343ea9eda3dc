// Package openruntimes has the types of Open Runtimes' contract for Go, so that functions written for it compile here
// unchanged.
package openruntimes

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"
)

// Context is what a function is given: the request, what makes responses, and logging.
type Context struct {
	Req ContextRequest
	Res ContextResponse

	log func(level, text string)
}

// NewContext returns a context; log takes each line that the function logs, with its level (info, error).
func NewContext(request ContextRequest, log func(level, text string)) Context {
	return Context{Req: request, log: log}
}

// Log writes a line to the log.
func (c *Context) Log(messages ...any) { c.log("info", line(messages)) }

// Error writes a line to the log, as an error.
func (c *Context) Error(messages ...any) { c.log("error", line(messages)) }

func line(messages []any) string {
	words := make([]string, len(messages))
	for i, message := range messages {
		switch message := message.(type) {
		case string:
			words[i] = message
		case fmt.Stringer:
			words[i] = message.String()
		default:
			words[i] = fmt.Sprintf("%#v", message)
		}
	}
	return strings.Join(words, " ")
}

// ContextRequest is the request. Names of headers are in lower case.
type ContextRequest struct {
	Headers     map[string]string
	Method      string
	Url         string
	Scheme      string
	Host        string
	Port        int
	Path        string
	QueryString string
	Query       map[string]string

	body []byte
}

// SetBodyBinary sets the body.
func (r *ContextRequest) SetBodyBinary(body []byte) { r.body = body }

// BodyBinary returns the body.
func (r ContextRequest) BodyBinary() []byte { return r.body }

// BodyText returns the body as text.
func (r ContextRequest) BodyText() string { return string(r.body) }

// BodyRaw returns the body as text.
//
// Deprecated: use BodyText.
func (r ContextRequest) BodyRaw() string { return r.BodyText() }

// BodyJson decodes the body into what target points at.
func (r ContextRequest) BodyJson(target any) error {
	if err := json.Unmarshal(r.body, target); err != nil {
		return errors.New("could not parse body into a JSON")
	}
	return nil
}

// Body returns a JSON object as a map, and any other body as text.
func (r ContextRequest) Body() any {
	if !strings.HasPrefix(r.Headers["content-type"], "application/json") {
		return r.BodyText()
	}
	object := map[string]any{}
	if err := r.BodyJson(&object); err != nil {
		return map[string]any{}
	}
	return object
}

// Response is what a function returns.
type Response struct {
	Body       []byte
	StatusCode int
	Headers    map[string]string
}

// ResponseOption changes a response that is being made.
type ResponseOption func(*Response)

// ContextResponse makes responses.
type ContextResponse struct{}

// WithHeaders sets the headers of a response.
func (ContextResponse) WithHeaders(headers map[string]string) ResponseOption {
	return func(response *Response) { response.Headers = headers }
}

// WithStatusCode sets the status of a response.
func (ContextResponse) WithStatusCode(status int) ResponseOption {
	return func(response *Response) { response.StatusCode = status }
}

// Binary answers with bytes.
func (ContextResponse) Binary(body []byte, options ...ResponseOption) Response {
	return made(body, 200, map[string]string{"content-type": "application/octet-stream"}, nil, options)
}

// Text answers with text.
func (ContextResponse) Text(body string, options ...ResponseOption) Response {
	return made([]byte(body), 200, map[string]string{"content-type": "text/plain"}, nil, options)
}

// Send answers with text.
//
// Deprecated: use Text.
func (r ContextResponse) Send(body string, options ...ResponseOption) Response {
	return r.Text(body, options...)
}

// Json answers with a value as JSON.
func (r ContextResponse) Json(value any, options ...ResponseOption) Response {
	body, err := json.Marshal(value)
	if err != nil {
		return r.Text("Error encoding JSON.", append(options, r.WithStatusCode(500))...)
	}
	return made(body, 200, nil, map[string]string{"content-type": "application/json"}, options)
}

// Empty answers without a body.
func (ContextResponse) Empty() Response { return made(nil, 204, nil, nil, nil) }

// Redirect answers that the client is to go to another address.
func (ContextResponse) Redirect(url string, options ...ResponseOption) Response {
	return made(nil, 301, nil, map[string]string{"location": url}, options)
}

// made puts a response together: the options replace the usual headers, and the fixed ones replace theirs.
func made(body []byte, status int, usual, fixed map[string]string, options []ResponseOption) Response {
	response := Response{Body: body, StatusCode: status}
	for _, option := range options {
		option(&response)
	}
	headers := maps.Clone(usual)
	if headers == nil {
		headers = map[string]string{}
	}
	for name, value := range response.Headers {
		headers[strings.ToLower(name)] = value
	}
	maps.Copy(headers, fixed)
	response.Headers = headers
	return response
}
