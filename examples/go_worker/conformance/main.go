// The worker that the conformance kit runs: the tasks of the app `conformance`, as docs/conformance.md lists them.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"stepwire.example/go_worker/stepwire"
)

func main() {
	worker, err := stepwire.New(stepwire.Options{
		Executor: os.Getenv("STEPWIRE_EXECUTOR"),
		App:      "conformance",
		Slots:    4,
		Tasks: map[string]stepwire.Task{
			"echo":        stepwire.Func(func(_ context.Context, input json.RawMessage) (json.RawMessage, error) { return input, nil }),
			"add":         stepwire.Func(func(_ context.Context, both pair) (float64, error) { return both.A + both.B, nil }),
			"length":      stepwire.Func(func(_ context.Context, text string) (int, error) { return utf8.RuneCountInString(text), nil }),
			"big":         stepwire.Func(func(_ context.Context, size big) (string, error) { return strings.Repeat("x", size.Bytes), nil }),
			"unencodable": stepwire.Func(func(context.Context, any) (float64, error) { return math.NaN(), nil }),
			"fail":        stepwire.Func(fail),
			"sleep":       stepwire.Func(sleep),
			"block":       stepwire.Func(block),
			"count":       stepwire.Func(func(context.Context, any) (int64, error) { return begun.Add(1), nil }),
		},
	})
	if err == nil {
		err = worker.Run(stepwire.Signals(10 * time.Second))
	}
	if err != nil {
		slog.Error(err.Error())
		os.Exit(1)
	}
}

type pair struct{ A, B float64 }
type big struct{ Bytes int }
type duration struct{ Seconds float64 }

func (d duration) length() time.Duration { return time.Duration(d.Seconds * float64(time.Second)) }

var begun atomic.Int64

func fail(_ context.Context, input struct{ How string }) (any, error) {
	switch input.How {
	case "retryable":
		return nil, errors.New("not now")
	case "final":
		return nil, &stepwire.Failure{Type: "NonRetriableError", Message: "never", Final: true}
	case "later":
		return nil, &stepwire.Failure{Type: "RetryAfterError", Message: "later", RetryAfter: 7 * time.Second}
	}
	return nil, fmt.Errorf("there is no way to fail called %q", input.How)
}

func sleep(ctx context.Context, wanted duration) (string, error) {
	select {
	case <-ctx.Done():
		return "", context.Cause(ctx)
	case <-time.After(wanted.length()):
		return "slept", nil
	}
}

// block keeps a thread busy, and looks at nothing.
func block(_ context.Context, wanted duration) (string, error) {
	for end := time.Now().Add(wanted.length()); time.Now().Before(end); {
	}
	return "blocked", nil
}
