package stepwire

import (
	"bytes"
	"testing"

	"google.golang.org/protobuf/proto"

	pb "stepwire.example/go_worker/gen/go/stepwire/v1"
)

func result(size int) *pb.WorkerMessage {
	output := &pb.Payload{Data: bytes.Repeat([]byte("x"), size)}
	return &pb.WorkerMessage{Kind: &pb.WorkerMessage_StepRun{StepRun: &pb.StepRun{Output: output}}}
}

// Every size around the limit arrives whole and in its order, and no frame is over the limit.
func TestFramesHoldTheirLimitAndLoseNothing(t *testing.T) {
	const limit = 2000
	framer := framer{maxFrameBytes: limit}
	for size := limit - 100; size < limit+100; size++ {
		sent := []*pb.WorkerMessage{result(10), result(size), result(5 * size), result(20)}
		var received []*pb.WorkerMessage
		var pieces []byte
		for frame := range framer.frames(sent) {
			if got := proto.Size(frame); got > limit {
				t.Fatalf("a frame of %d bytes for messages of %d", got, size)
			}
			for _, message := range frame.Messages {
				fragment := message.GetFragment()
				if fragment == nil {
					received = append(received, message)
					continue
				}
				pieces = append(pieces, fragment.Data...)
				if fragment.Last {
					whole := &pb.WorkerMessage{}
					if err := proto.Unmarshal(pieces, whole); err != nil {
						t.Fatal(err)
					}
					received, pieces = append(received, whole), nil
				}
			}
		}
		if len(received) != len(sent) {
			t.Fatalf("%d messages of %d bytes became %d", len(sent), size, len(received))
		}
		for i := range sent {
			if !proto.Equal(sent[i], received[i]) {
				t.Fatalf("message %d of %d bytes is another now", i, size)
			}
		}
	}
}

func TestMessagesShareAFrame(t *testing.T) {
	framer := framer{maxFrameBytes: 1 << 20}
	count := 0
	for range framer.frames([]*pb.WorkerMessage{result(1), result(2), result(3)}) {
		count++
	}
	if count != 1 {
		t.Fatalf("three small messages took %d frames", count)
	}
}

func TestFragmentsOutOfOrderEndTheStream(t *testing.T) {
	piece := func(id uint64, last bool) *pb.ExecutorMessage {
		return &pb.ExecutorMessage{Kind: &pb.ExecutorMessage_Fragment{Fragment: &pb.Fragment{Id: id, Last: last}}}
	}
	for _, pieces := range [][]*pb.ExecutorMessage{
		{piece(1, false), piece(2, true)},
		{piece(2, true), piece(2, true)},
		{piece(2, true), piece(1, true)},
	} {
		joiner := joiner{}
		if _, err := joiner.add(pieces[0]); err != nil {
			t.Fatal(err)
		}
		if _, err := joiner.add(pieces[1]); err == nil {
			t.Fatalf("%v was taken after %v", pieces[1], pieces[0])
		}
	}
}
