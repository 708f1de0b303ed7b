// Messages into frames and back: batching, and fragments of what is too large for a frame.

package stepwire

import (
	"fmt"
	"iter"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	pb "stepwire.example/go_worker/gen/go/stepwire/v1"
)

const (
	leastFrameBytes = 1 << 10
	// What frame, message and fragment add to a piece, at the most.
	fragmentOverhead = 64
	// The most that fragments are joined to.
	maxMessageBytes = 64 << 20
)

// framer makes the frames that a stream sends.
type framer struct {
	maxFrameBytes uint64 // 0: no limit
	fragments     uint64
}

// frames gives frames that hold the messages in their order, as few as possible. A message that is too large for a frame
// becomes fragments, each in a frame of its own.
func (f *framer) frames(messages []*pb.WorkerMessage) iter.Seq[*pb.WorkerFrame] {
	limit := max(f.maxFrameBytes, leastFrameBytes)
	return func(yield func(*pb.WorkerFrame) bool) {
		frame, size := &pb.WorkerFrame{}, uint64(0)
		for _, message := range messages {
			// In a frame a message is preceded by its tag, one byte, and its length.
			whole := 1 + uint64(protowire.SizeBytes(proto.Size(message)))
			if f.maxFrameBytes != 0 && size+whole > limit {
				if len(frame.Messages) > 0 && !yield(frame) {
					return
				}
				frame, size = &pb.WorkerFrame{}, 0
				if whole > limit {
					if !f.cut(message, int(limit)-fragmentOverhead, yield) {
						return
					}
					continue
				}
			}
			frame.Messages = append(frame.Messages, message)
			size += whole
		}
		if len(frame.Messages) > 0 {
			yield(frame)
		}
	}
}

func (f *framer) cut(message *pb.WorkerMessage, piece int, yield func(*pb.WorkerFrame) bool) bool {
	data, err := proto.Marshal(message)
	if err != nil {
		// Only text that is not UTF-8 fails, and `text` has mended that wherever it comes from a task.
		panic(fmt.Sprintf("a message of the worker can't be serialized: %v", err))
	}
	f.fragments++
	for start := 0; start < len(data); start += piece {
		end := min(start+piece, len(data))
		fragment := &pb.Fragment{Id: f.fragments, Data: data[start:end], Last: end == len(data)}
		if !yield(&pb.WorkerFrame{Messages: []*pb.WorkerMessage{{Kind: &pb.WorkerMessage_Fragment{Fragment: fragment}}}}) {
			return false
		}
	}
	return true
}

// joiner puts together the fragments that a stream receives.
type joiner struct {
	id   uint64 // of the last fragment
	open bool
	data []byte
}

// add takes a message, and gives it, or the one that it completes, or nil.
func (j *joiner) add(message *pb.ExecutorMessage) (*pb.ExecutorMessage, error) {
	fragment := message.GetFragment()
	if fragment == nil {
		return message, nil
	}
	if j.open && fragment.Id != j.id {
		return nil, fmt.Errorf("fragment %d came before the last one of %d", fragment.Id, j.id)
	}
	if !j.open && fragment.Id <= j.id {
		return nil, fmt.Errorf("fragment %d came after the last one of %d: ids must grow", fragment.Id, j.id)
	}
	if len(j.data)+len(fragment.Data) > maxMessageBytes {
		return nil, fmt.Errorf("the fragments %d have more than %d bytes, the most that is taken", fragment.Id, maxMessageBytes)
	}
	j.id, j.open, j.data = fragment.Id, !fragment.Last, append(j.data, fragment.Data...)
	if j.open {
		return nil, nil
	}
	whole := &pb.ExecutorMessage{}
	err := proto.Unmarshal(j.data, whole)
	j.data = nil
	if err != nil {
		return nil, fmt.Errorf("the fragments %d can't be read: %w", fragment.Id, err)
	}
	if whole.GetFragment() != nil {
		return nil, fmt.Errorf("the fragments %d hold another fragment", fragment.Id)
	}
	return whole, nil
}
