// A worker in Go for the app of examples/mixed_languages.py: its tasks `sha256`, `word-count` and `resize-image`.
//
//	STEPWIRE_EXECUTOR=127.0.0.1:8377 go run .
package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"
	"unicode"

	"stepwire.example/go_worker/stepwire"
)

func main() {
	executor := flag.String("executor", environment("STEPWIRE_EXECUTOR", "127.0.0.1:8377"), "HOST:PORT of the executor, or several with commas")
	slots := flag.Uint("slots", 4, "attempts at once")
	patience := flag.Duration("drain", 30*time.Second, "how long a drain may take")
	flag.Parse()

	worker, err := stepwire.New(stepwire.Options{
		Executor: *executor,
		App:      "albums",
		Slots:    uint32(*slots),
		Labels:   map[string]string{"language": "go"},
		Tasks: map[string]stepwire.Task{
			"sha256":       stepwire.Func(hash),
			"word-count":   stepwire.Func(countWords),
			"resize-image": stepwire.Func(resize),
		},
	})
	if err == nil {
		err = worker.Run(stepwire.Signals(*patience))
	}
	if err != nil {
		slog.Error(err.Error())
		os.Exit(1)
	}
}

func hash(_ context.Context, content []byte) (string, error) {
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:]), nil
}

// countWords says how often each word of a text occurs, in lower case.
func countWords(_ context.Context, words string) (map[string]int, error) {
	counts := map[string]int{}
	for _, word := range strings.FieldsFunc(strings.ToLower(words), func(r rune) bool { return !unicode.IsLetter(r) }) {
		counts[word]++
	}
	return counts, nil
}

func environment(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}

func init() {
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "A worker of the app \"albums\" in Go. Token and TLS: by the variables of docs/security.md.")
		flag.PrintDefaults()
	}
}
