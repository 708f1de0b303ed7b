package stepwire

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	pb "stepwire.example/go_worker/gen/go/stepwire/v1"
)

func TestValuesTravelAsJSONAndBytesAsTheyAre(t *testing.T) {
	double := Func(func(_ context.Context, n int) (int, error) { return 2 * n, nil })
	output, err := double.run(context.Background(), &pb.Payload{Data: []byte("21")}) // no encoding means JSON
	if err != nil || string(output.Data) != "42" || output.Encoding != "json" {
		t.Fatal(output, err)
	}
	same := Func(func(_ context.Context, raw []byte) ([]byte, error) { return raw, nil })
	output, err = same.run(context.Background(), &pb.Payload{Data: []byte{0, 255}, Encoding: "binary"})
	if err != nil || string(output.Data) != "\x00\xff" || output.Encoding != "binary" {
		t.Fatal(output, err)
	}
	absent := Func(func(_ context.Context, it any) (bool, error) { return it == nil, nil })
	if output, err = absent.run(context.Background(), nil); err != nil || string(output.Data) != "true" {
		t.Fatal(output, err)
	}
}

func TestWhatCanNotBeReadOrWrittenIsFinal(t *testing.T) {
	nan := Func(func(context.Context, any) (float64, error) { return math.NaN(), nil })
	for _, payload := range []*pb.Payload{
		{Data: []byte("null")},
		{Data: []byte("{")},
		{Data: []byte("x"), Encoding: "binary/encrypted"},
	} {
		_, err := nan.run(context.Background(), payload)
		if failure := describe(err); failure.Type != "EncodingError" || failure.Retryable {
			t.Fatal(failure)
		}
	}
}

func TestAnErrorSaysWhatIsToBeMadeOfIt(t *testing.T) {
	inner := &Failure{Type: "Busy", Message: "busy", RetryAfter: 7 * time.Second}
	failure := describe(fmt.Errorf("can't charge: %w", inner))
	if failure.Message != "can't charge: busy" || !failure.Retryable || failure.RetryAfter.AsDuration() != 7*time.Second {
		t.Fatal(failure)
	}
	if failure.Cause.Type != "Busy" || failure.Cause.Cause != nil {
		t.Fatal(failure.Cause)
	}
	if describe(errors.New("x")).Retryable != true || describe(&Failure{Final: true}).Retryable {
		t.Fatal("an error is tried again unless it says that it is final")
	}
	if long := describe(errors.New(strings.Repeat("\xff", 1<<20))); len(long.Message) > 1<<18 {
		t.Fatalf("a message of %d bytes", len(long.Message))
	}
}
