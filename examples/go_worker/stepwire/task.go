// What a task is, and how Go's values and errors become payloads and failures.

package stepwire

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	pb "stepwire.example/go_worker/gen/go/stepwire/v1"
)

const (
	encodingJSON   = "json"
	encodingBinary = "binary"
	// Failure.cause may go 16 deep.
	maxCauses    = 15
	maxTextBytes = 64 << 10
)

// Task is code that runs an attempt. Func makes one.
type Task struct {
	run func(ctx context.Context, input *pb.Payload) (*pb.Payload, error)
}

// Attempt is what a task may ask about the attempt that it runs.
type Attempt struct {
	RunID  string
	StepID string
	Index  uint32 // of the step among those with the same id, from 0
	Number uint32 // of the attempt, from 1
	// W3C trace context of the attempt's span, the parent of any that the task makes.
	Traceparent string
}

type attemptKey struct{}

// AttemptOf gives the attempt whose task was given the context.
func AttemptOf(ctx context.Context) Attempt {
	attempt, _ := ctx.Value(attemptKey{}).(Attempt)
	return attempt
}

// Func makes a task of a function. Input and output are JSON; a []byte travels as it is, with the encoding "binary". The
// context is cancelled, with the reason as its cause, when the attempt is no longer wanted. A panic fails the attempt.
func Func[In, Out any](run func(ctx context.Context, input In) (Out, error)) Task {
	return Task{func(ctx context.Context, payload *pb.Payload) (*pb.Payload, error) {
		var input In
		if err := decode(payload, &input); err != nil {
			return nil, err
		}
		output, err := run(ctx, input)
		if err != nil {
			return nil, err
		}
		return encode(output)
	}}
}

// Failure is an error that says what the executor is to make of it. Tasks return it, or wrap it.
type Failure struct {
	Type       string // of the error, e.g. "CardDeclined"
	Message    string
	Final      bool          // true: not to be tried again
	RetryAfter time.Duration // if not 0: the earliest delay before the next attempt
	Stack      string
	Cause      error
}

func (f *Failure) Error() string { return f.Message }
func (f *Failure) Unwrap() error { return f.Cause }

// decode reads what a task is given into the value that `input` points to. An absent or empty payload is JSON null.
func decode(payload *pb.Payload, input any) error {
	encoding, data := payload.GetEncoding(), payload.GetData()
	if raw, ok := input.(*[]byte); ok && encoding == encodingBinary {
		*raw = data
		return nil
	}
	if encoding != "" && encoding != encodingJSON {
		return &Failure{Type: "EncodingError", Message: fmt.Sprintf("the input is encoded as %q, which the task does not take", encoding), Final: true}
	}
	if len(data) == 0 {
		data = []byte("null")
	}
	if err := json.Unmarshal(data, input); err != nil {
		return &Failure{Type: "EncodingError", Message: "the input does not fit the task: " + err.Error(), Final: true, Cause: err}
	}
	return nil
}

// encode makes the payload of what a task returned.
func encode(output any) (*pb.Payload, error) {
	if raw, ok := output.([]byte); ok {
		return &pb.Payload{Data: raw, Encoding: encodingBinary}, nil
	}
	data, err := json.Marshal(output)
	if err != nil {
		return nil, &Failure{Type: "EncodingError", Message: "the output can't be encoded: " + err.Error(), Final: true, Cause: err}
	}
	return &pb.Payload{Data: data, Encoding: encodingJSON}, nil
}

// describe makes the message of an error. One that wraps a Failure keeps its own words and type, and is final if that is.
func describe(err error) *pb.Failure {
	failure := causes(err, maxCauses)
	var said *Failure
	if errors.As(err, &said) {
		failure.Retryable = !said.Final
		if said.RetryAfter > 0 {
			failure.RetryAfter = durationpb.New(said.RetryAfter)
		}
	}
	return failure
}

func causes(err error, deep int) *pb.Failure {
	failure := &pb.Failure{Type: fmt.Sprintf("%T", err), Message: text(err.Error()), Retryable: true}
	if said, ok := err.(*Failure); ok {
		failure.Type, failure.Stack = text(said.Type), text(said.Stack)
	}
	if cause := errors.Unwrap(err); cause != nil && deep > 0 {
		failure.Cause = causes(cause, deep-1)
	}
	return failure
}

// text makes words fit for a message: UTF-8, and not so long that a failure would pass the limit of what fragments hold.
func text(words string) string {
	if len(words) > maxTextBytes {
		words = words[:maxTextBytes] + "…"
	}
	return strings.ToValidUTF8(words, "\uFFFD")
}
