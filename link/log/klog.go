package log

import (
	"context"
	"log/slog"
	"sync"

	"k8s.io/klog/v2"
)

// routeTessera sends what Tessera logs through klog, which is one for the whole
// process, to slog's default logger instead of standard error: warnings as such,
// informational lines as debug lines.
var routeTessera = sync.OnceFunc(func() {
	klog.SetSlogLogger(slog.New(quiet{func(h slog.Handler) slog.Handler { return h }}))
})

// quiet is slog's default handler at the time of each record, with what is less
// than a warning lowered to debug.
type quiet struct {
	with func(slog.Handler) slog.Handler
}

func (q quiet) handler() slog.Handler { return q.with(slog.Default().Handler()) }

func lower(l slog.Level) slog.Level {
	if l < slog.LevelWarn {
		return slog.LevelDebug
	}
	return l
}

func (q quiet) Enabled(ctx context.Context, l slog.Level) bool {
	return q.handler().Enabled(ctx, lower(l))
}

func (q quiet) Handle(ctx context.Context, r slog.Record) error {
	r.Level = lower(r.Level)
	r.Message = "tessera: " + r.Message
	return q.handler().Handle(ctx, r)
}

func (q quiet) WithAttrs(a []slog.Attr) slog.Handler {
	return quiet{func(h slog.Handler) slog.Handler { return q.with(h).WithAttrs(a) }}
}

func (q quiet) WithGroup(name string) slog.Handler {
	return quiet{func(h slog.Handler) slog.Handler { return q.with(h).WithGroup(name) }}
}
