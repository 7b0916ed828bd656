package log

import (
	"context"
	"log/slog"

	"k8s.io/klog/v2"
)

// RouteTessera sends what Tessera logs, for the whole process, to l: to standard
// error otherwise. Its warnings stay warnings; its informational lines are for
// debugging. It is to be called once, before the first [Open].
func RouteTessera(l *slog.Logger) { klog.SetSlogLogger(slog.New(quiet{l.Handler()})) }

// quiet lowers what is less than a warning to debug.
type quiet struct{ slog.Handler }

func lower(l slog.Level) slog.Level {
	if l < slog.LevelWarn {
		return slog.LevelDebug
	}
	return l
}

func (q quiet) Enabled(ctx context.Context, l slog.Level) bool {
	return q.Handler.Enabled(ctx, lower(l))
}

func (q quiet) Handle(ctx context.Context, r slog.Record) error {
	r.Level = lower(r.Level)
	r.Message = "tessera: " + r.Message
	return q.Handler.Handle(ctx, r)
}

func (q quiet) WithAttrs(a []slog.Attr) slog.Handler { return quiet{q.Handler.WithAttrs(a)} }
func (q quiet) WithGroup(name string) slog.Handler   { return quiet{q.Handler.WithGroup(name)} }
