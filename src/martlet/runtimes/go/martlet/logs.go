package martlet

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"
)

// Longest frame: what POSIX lets a pipe take without mixing it with another writer's.
const frameBytes = 4096

// Where requests run one at a time, everything logged belongs to this one.
var (
	oneAtATime  bool
	onlyRequest atomic.Pointer[string]
)

func begin(id string) {
	if oneAtATime {
		onlyRequest.Store(&id)
	}
}

func end() { onlyRequest.Store(nil) }

func idOf(ctx context.Context) string {
	if id, ok := ctx.Value(requestID{}).(string); ok {
		return id
	}
	if id := onlyRequest.Load(); id != nil {
		return *id
	}
	return ""
}

// emit writes text as frames: the byte 0x1e and a line of JSON that says whose the text is.
func emit(file *os.File, id, stream, text string) {
	tag := []byte("null")
	if id != "" {
		tag = quote(id[:min(len(id), 128)])
	}
	seconds := float64(time.Now().UnixMilli()) / 1000
	head := fmt.Appendf(nil, "\x1e{\"t\":%.3f,\"id\":%s,\"s\":%s,\"m\":", seconds, tag, quote(stream))
	room := frameBytes - len(head) - len("\"\"}\n")
	for {
		piece := text[:min(len(text), room)]
		for len(piece) < len(text) && !utf8.RuneStart(text[len(piece)]) {
			piece = piece[:len(piece)-1]
		}
		body := quote(piece)
		for len(body)-2 > room {
			piece = strings.ToValidUTF8(piece[:len(piece)/2], "")
			body = quote(piece)
		}
		rest := text[len(piece):]
		if line := strings.LastIndexByte(piece, '\n'); rest != "" && line >= 0 {
			rest = text[line+1:]
			body = quote(piece[:line])
		}
		file.Write(append(append(head[:len(head):len(head)], body...), "}\n"...))
		if text = rest; text == "" {
			return
		}
	}
}

func quote(text string) []byte {
	quoted, _ := json.Marshal(text)
	return quoted
}

// logs sends what is logged with log/slog and log as frames whose stream is the level.
type logs struct {
	attributes slog.Handler // writes all but the message into text
	text       *lockedBuffer
}

type lockedBuffer struct {
	sync.Mutex
	bytes.Buffer
}

func installLogs(concurrency int) {
	oneAtATime = concurrency <= 1
	text := &lockedBuffer{}
	dropOwn := func(groups []string, attribute slog.Attr) slog.Attr {
		if len(groups) == 0 {
			switch attribute.Key {
			case slog.TimeKey, slog.LevelKey, slog.MessageKey:
				return slog.Attr{}
			}
		}
		return attribute
	}
	options := &slog.HandlerOptions{ReplaceAttr: dropOwn, Level: slog.LevelDebug}
	slog.SetDefault(slog.New(logs{slog.NewTextHandler(&text.Buffer, options), text}))
}

// Enabled says yes from the level INFO on.
func (l logs) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelInfo }

// Handle writes one record.
func (l logs) Handle(ctx context.Context, record slog.Record) error {
	l.text.Lock()
	l.text.Reset()
	err := l.attributes.Handle(ctx, record)
	line := strings.TrimSpace(record.Message + " " + l.text.String())
	l.text.Unlock()
	emit(os.Stderr, idOf(ctx), levelName(record.Level), line)
	return err
}

// WithAttrs adds attributes to every record.
func (l logs) WithAttrs(attributes []slog.Attr) slog.Handler {
	return logs{l.attributes.WithAttrs(attributes), l.text}
}

// WithGroup puts the attributes that follow into a group.
func (l logs) WithGroup(name string) slog.Handler { return logs{l.attributes.WithGroup(name), l.text} }

func levelName(level slog.Level) string {
	switch {
	case level >= slog.LevelError:
		return "error"
	case level >= slog.LevelWarn:
		return "warning"
	case level >= slog.LevelInfo:
		return "info"
	default:
		return "debug"
	}
}

// requestLogs gives every record the id of one request.
type requestLogs struct {
	slog.Handler
	id string
}

func (l requestLogs) Handle(ctx context.Context, record slog.Record) error {
	return l.Handler.Handle(context.WithValue(ctx, requestID{}, l.id), record)
}

func (l requestLogs) WithAttrs(attributes []slog.Attr) slog.Handler {
	return requestLogs{l.Handler.WithAttrs(attributes), l.id}
}

func (l requestLogs) WithGroup(name string) slog.Handler {
	return requestLogs{l.Handler.WithGroup(name), l.id}
}
