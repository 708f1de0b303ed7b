// The attempts in hand: those that run, and the results that no Recorded has named yet. They outlive streams.

package stepwire

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	pb "stepwire.example/go_worker/gen/go/stepwire/v1"
)

// name is what attempts are matched by: all of pb.Attempt. The fence alone would do as long as the executor keeps its store.
type name struct {
	run   string
	step  string
	index uint32
	fence uint64
}

func nameOf(attempt *pb.Attempt) name {
	return name{attempt.GetRunId(), attempt.GetKey().GetId(), attempt.GetKey().GetIndex(), attempt.GetFence()}
}

type attempt struct {
	self   *pb.Attempt
	cancel context.CancelCauseFunc
	report *pb.WorkerMessage // nil while it runs
	ended  uint64            // the place of its report among all
}

// hand holds the attempts. Whatever changes them also queues the message about it, under one lock: so the executor hears
// of things in the order in which they happened.
type hand struct {
	tasks map[string]Task

	mu             sync.Mutex
	attempts       map[name]*attempt
	ended          uint64
	maxOutputBytes uint64
	draining       bool
	out            *outbox // of the stream that was welcomed; nil while there is none
	// Gets a value, if it has none, when the last attempt leaves.
	emptied chan struct{}
}

func newHand(tasks map[string]Task) *hand {
	return &hand{tasks: tasks, attempts: map[name]*attempt{}, emptied: make(chan struct{}, 1)}
}

// names gives the attempts in hand, for Hello.
func (h *hand) names() []*pb.Attempt {
	h.mu.Lock()
	defer h.mu.Unlock()
	var names []*pb.Attempt
	for _, each := range h.attempts {
		names = append(names, each.self)
	}
	return names
}

func (h *hand) count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.attempts)
}

// welcome begins a stream: unwanted attempts are forgotten, kept results are sent again.
func (h *hand) welcome(welcome *pb.Welcome, out *outbox) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.maxOutputBytes = welcome.GetLimits().GetMaxOutputBytes()
	h.out = out
	for _, name := range welcome.UnwantedAttempts {
		h.forget(name, "the executor no longer wants the attempt")
	}
	var kept []*attempt
	for _, each := range h.attempts {
		if each.report != nil {
			kept = append(kept, each)
		}
	}
	slices.SortFunc(kept, func(a, b *attempt) int { return int(a.ended) - int(b.ended) })
	for _, each := range kept {
		h.put(each.report)
	}
}

// lost ends a stream: what finishes from here on waits for the next Welcome.
func (h *hand) lost() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.out = nil
}

// start begins an attempt.
func (h *hand) start(start *pb.AttemptStart) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.draining { // it was on its way when Draining was sent
		h.put(draining(start.Attempt))
		return
	}
	if _, known := h.attempts[nameOf(start.Attempt)]; known {
		return
	}
	if closure := start.GetClosure(); closure != nil { // there is no invocation here that could hold one
		h.put(&pb.WorkerMessage{Kind: &pb.WorkerMessage_NeedJournal{NeedJournal: &pb.NeedJournal{
			RunId: start.Attempt.GetRunId(), Invocation: closure.Invocation, ReturnedAttempts: []*pb.Attempt{start.Attempt},
		}}})
		return
	}
	key := start.GetAttempt().GetKey()
	ctx, cancel := context.WithCancelCause(context.WithValue(context.Background(), attemptKey{}, Attempt{
		RunID: start.Attempt.GetRunId(), StepID: key.GetId(), Index: key.GetIndex(), Number: start.Number, Traceparent: start.Traceparent,
	}))
	it := &attempt{self: start.Attempt, cancel: cancel}
	h.attempts[nameOf(start.Attempt)] = it
	go h.run(ctx, it, start.GetTask())
}

// run runs an attempt and reports it, however the task leaves.
func (h *hand) run(ctx context.Context, it *attempt, call *pb.TaskStart) {
	began := time.Now()
	var output *pb.Payload
	err := errors.New("the task has ended its goroutine instead of returning")
	defer func() {
		if reason := recover(); reason != nil {
			err = &Failure{Type: "panic", Message: fmt.Sprint(reason), Stack: string(debug.Stack())}
		}
		h.report(it, call, output, err, time.Since(began))
	}()
	task, found := h.tasks[call.GetName()]
	if !found {
		err = &Failure{Type: "TaskNotFoundError", Message: fmt.Sprintf("this worker has no task %q", call.GetName()), Final: true}
		return
	}
	output, err = task.run(ctx, call.Input)
}

func (h *hand) report(it *attempt, call *pb.TaskStart, output *pb.Payload, err error, took time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	it.cancel(nil)
	if h.attempts[nameOf(it.self)] != it {
		return // it was cancelled: nothing is reported
	}
	if limit := h.maxOutputBytes; err == nil && limit != 0 && uint64(len(output.Data)) > limit {
		err = &Failure{Type: "OutputTooLargeError", Final: true, Message: fmt.Sprintf("task %s returned %d bytes; "+
			"the executor takes %d at most (its setting max_output_bytes)", call.GetName(), len(output.Data), limit)}
	}
	elapsed := durationpb.New(took)
	if err != nil {
		failed := &pb.StepFailed{Attempt: it.self, Failure: describe(err), Elapsed: elapsed}
		it.report = &pb.WorkerMessage{Kind: &pb.WorkerMessage_StepFailed{StepFailed: failed}}
	} else {
		done := &pb.StepRun{Attempt: it.self, Output: output, Elapsed: elapsed}
		it.report = &pb.WorkerMessage{Kind: &pb.WorkerMessage_StepRun{StepRun: done}}
	}
	h.ended++
	it.ended = h.ended
	h.put(it.report)
}

// recorded forgets the attempts that the executor has answered.
func (h *hand) recorded(recorded *pb.Recorded) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, name := range recorded.Attempts {
		h.forget(name, "the attempt is recorded")
	}
	for _, refusal := range recorded.Refusals {
		h.forget(refusal.Attempt, "the executor refused the attempt: "+refusal.Reason)
	}
}

// cancel stops what a Cancel names, and reports nothing.
func (h *hand) cancel(cancel *pb.Cancel) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if cancel.GetAttempt() != nil {
		h.forget(cancel.GetAttempt(), cancel.Reason)
	}
	for _, each := range h.attempts {
		if cancel.GetRunId() != "" && each.self.GetRunId() == cancel.GetRunId() {
			h.forget(each.self, cancel.Reason)
		}
	}
}

// drain tells the executor that nothing new is taken.
func (h *hand) drain() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.draining = true
	h.put(draining())
}

// giveBack cancels what still runs and returns it to the executor.
func (h *hand) giveBack() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.draining = true
	var unfinished []*pb.Attempt
	for _, each := range h.attempts {
		if each.report == nil {
			unfinished = append(unfinished, each.self)
			h.forget(each.self, "the worker stops")
		}
	}
	if len(unfinished) > 0 {
		h.put(draining(unfinished...))
	}
}

// goodbye is the last word of a drain.
func (h *hand) goodbye() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.put(&pb.WorkerMessage{Kind: &pb.WorkerMessage_Draining{Draining: &pb.Draining{Done: true}}})
}

func (h *hand) forget(name *pb.Attempt, reason string) {
	it, known := h.attempts[nameOf(name)]
	if !known {
		return
	}
	delete(h.attempts, nameOf(name))
	it.cancel(errors.New(reason))
	if len(h.attempts) == 0 {
		select {
		case h.emptied <- struct{}{}:
		default:
		}
	}
}

func (h *hand) put(message *pb.WorkerMessage) {
	if h.out != nil {
		h.out.put(message)
	}
}

func draining(returned ...*pb.Attempt) *pb.WorkerMessage {
	return &pb.WorkerMessage{Kind: &pb.WorkerMessage_Draining{Draining: &pb.Draining{ReturnedAttempts: returned}}}
}
