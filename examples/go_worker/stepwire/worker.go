// Package stepwire is a worker for tasks: it connects to an executor, says which tasks it has, and runs what it is given.
//
// It is made from the contract (proto/stepwire/v1 and docs/protocol.md) alone. What lives how long shows in its files: a
// Worker and its hand live as long as the process, a stream as long as a connection.
package stepwire

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	mathrand "math/rand/v2"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "stepwire.example/go_worker/gen/go/stepwire/v1"
)

const (
	protocol   = 1
	sdkName    = "stepwire-go-example"
	sdkVersion = "0.1.0"

	firstBackoff = 100 * time.Millisecond
	lastBackoff  = 5 * time.Second
	// No delay is longer than a sixth of the session's grace: one failure to connect must not cost what is in hand.
	graceShare = 7 // as a delay is up to a tenth longer than its backoff
	// A connection that lived so long was a good one: the next backoff begins anew.
	steadyAfter = time.Second
	// What an executor may ask for, whatever it says: see GoAway and Welcome in the contract.
	leastGrace  = 100 * time.Millisecond
	longestAway = 5 * time.Minute
)

// Options say what a worker is.
type Options struct {
	Executor   string // HOST:PORT or unix:PATH, or several with commas between them, tried in turn
	App        string
	AppVersion string
	Slots      uint32 // attempts at once
	Labels     map[string]string
	Tasks      map[string]Task
}

// Worker serves tasks until it is told to end.
type Worker struct {
	options   Options
	addresses []string
	security  security
	instance  string
	session   string // of the last Welcome
	hand      *hand
}

// New makes a worker. Token and TLS are those of the environment (docs/security.md).
func New(options Options) (*Worker, error) {
	addresses := strings.Split(options.Executor, ",")
	security, err := securityFromEnvironment(addresses)
	if err != nil {
		return nil, err
	}
	host, err := os.Hostname()
	if err != nil {
		host = "host"
	}
	instance := fmt.Sprintf("%.64s-%d-%.6s", host, os.Getpid(), rand.Text())
	return &Worker{options: options, addresses: addresses, security: security, instance: instance, hand: newHand(options.Tasks)}, nil
}

// Run serves until `drain` is done, then finishes what is in hand and returns nil. When `stop` is done what still runs is
// given back instead. It returns an error if the executor refuses the worker, or if results could not be delivered.
func (w *Worker) Run(drain, stop context.Context) error {
	backoff, longest := firstBackoff, lastBackoff
	for attempt := 0; drain.Err() == nil || w.hand.count() > 0; attempt++ {
		began := time.Now()
		end := w.connect(w.addresses[attempt%len(w.addresses)], drain, stop)
		if end.clean {
			return nil
		}
		if refused(end.err) {
			return fmt.Errorf("the executor refuses this worker: %s", status.Convert(end.err).Message())
		}
		if end.welcome != nil {
			w.session = end.welcome.SessionId
			if grace := end.welcome.GetSessionGrace().AsDuration(); grace > 0 {
				longest = min(lastBackoff, max(grace, leastGrace)/graceShare)
			}
			if time.Since(began) > steadyAfter {
				backoff = firstBackoff
			}
		}
		// Full jitter, but for a tenth: many workers that lost one executor come back spread out.
		delay := backoff/10 + mathrand.N(backoff)
		if end.goAway != nil {
			least := min(max(end.goAway.GetReconnectDelay().AsDuration(), 0), longestAway)
			delay += least + mathrand.N(least/2+1)
		} else {
			slog.Warn("the connection is lost", "reason", reason(end.err), "reconnect_in", delay.Round(time.Millisecond))
		}
		backoff = min(2*backoff, longest)
		select {
		case <-stop.Done():
			if left := w.hand.count(); left > 0 {
				return fmt.Errorf("stopped without a connection: %d attempts are unfinished or not recorded", left)
			}
		case <-w.wakened(drain):
		case <-time.After(delay):
		}
	}
	return nil
}

// wakened gives a channel that a drain wakes up if there is nothing to wait for.
func (w *Worker) wakened(drain context.Context) <-chan struct{} {
	if drain.Err() == nil && w.hand.count() == 0 {
		return drain.Done()
	}
	return nil
}

func (w *Worker) hello(draining bool) *pb.Hello {
	return &pb.Hello{
		MinProtocol: protocol, MaxProtocol: protocol,
		SdkName: sdkName, SdkVersion: sdkVersion, InstanceId: w.instance,
		App: w.options.App, AppVersion: w.options.AppVersion, Labels: w.options.Labels,
		Tasks: slices.Sorted(maps.Keys(w.options.Tasks)), Slots: w.options.Slots,
		MaxInvocations: 1, // the least that is allowed; without functions there are none
		ResumeSession:  w.session, AttemptsInHand: w.hand.names(),
		Draining: draining,
	}
}

// refused says whether the stream ended with a status after which the contract forbids to reconnect.
func refused(err error) bool {
	switch status.Code(err) {
	case codes.InvalidArgument, codes.FailedPrecondition, codes.PermissionDenied, codes.Unauthenticated:
		return true
	}
	return false
}

func reason(err error) string {
	if errors.Is(err, io.EOF) {
		return "the executor closed the stream"
	}
	return status.Convert(err).Message()
}

// Signals gives what Run takes. The first SIGTERM or Ctrl-C begins the drain; the second, or `patience`, stops it.
func Signals(patience time.Duration) (drain, stop context.Context) {
	drain, beginDrain := context.WithCancel(context.Background())
	stop, beginStop := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	go func() {
		slog.Info("draining", "signal", <-signals)
		beginDrain()
		select {
		case <-signals:
		case <-time.After(patience):
		}
		beginStop()
	}()
	return drain, stop
}
