// One stream to the executor, from Hello to its end: a goroutine that reads, one that writes, one that keeps watch.

package stepwire

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	pb "stepwire.example/go_worker/gen/go/stepwire/v1"
)

const (
	welcomeTimeout = 10 * time.Second
	goodbyeTimeout = 5 * time.Second
	// What an executor may ask for, whatever it says: see Welcome in the contract.
	defaultHeartbeat = 3 * time.Second
	leastHeartbeat   = 10 * time.Millisecond
	mostHeartbeat    = time.Minute
	// Whatever limit an executor sets for its frames, fragments included.
	maxReceivedBytes = maxMessageBytes + 1<<20
)

// outbox queues what is to be sent: it never blocks, and all that has gathered leaves in one frame.
type outbox struct {
	mu       sync.Mutex
	messages []*pb.WorkerMessage
	ready    chan struct{} // has a value while there are messages
}

func (o *outbox) put(message *pb.WorkerMessage) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.messages = append(o.messages, message)
	select {
	case o.ready <- struct{}{}:
	default:
	}
}

func (o *outbox) take() []*pb.WorkerMessage {
	o.mu.Lock()
	defer o.mu.Unlock()
	messages := o.messages
	o.messages = nil
	return messages
}

// stream is a connection that has been opened.
type stream struct {
	hand     *hand
	cancel   context.CancelCauseFunc
	call     grpc.BidiStreamingClient[pb.WorkerFrame, pb.ExecutorFrame]
	out      *outbox
	welcomes chan *pb.Welcome // gets the one Welcome, after the hand has got it
	closing  chan struct{}    // closed to end our side once all is written
	ended    chan error       // gets why the stream ended
	framer   framer           // the writer's, but for its limit, which is set before anything follows Hello
	limit    atomic.Uint64    // Limits.max_frame_bytes; none for Hello, which is never cut
	heard    atomic.Int64     // when the last frame came, in nanoseconds since `opened`
	opened   time.Time
	goAway   *pb.GoAway // read it after `ended`
}

// ending is how a stream ended.
type ending struct {
	welcome *pb.Welcome // nil if there was none
	goAway  *pb.GoAway  // nil if there was none
	clean   bool        // the drain is over
	err     error
}

// connect opens a stream, and holds it until it ends or the drain is over. `drain` and `stop` are those of Worker.Run.
func (w *Worker) connect(address string, drain, stop context.Context) ending {
	connection, err := grpc.NewClient(address, grpc.WithTransportCredentials(w.security.credentials))
	if err != nil {
		return ending{err: err}
	}
	defer connection.Close()
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	opening := ctx
	if w.security.token != "" {
		opening = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+w.security.token)
	}
	call, err := pb.NewWorkerServiceClient(connection).Connect(opening, grpc.MaxCallRecvMsgSize(maxReceivedBytes))
	if err != nil {
		return ending{err: err}
	}
	s := &stream{
		hand: w.hand, cancel: cancel, call: call, out: &outbox{ready: make(chan struct{}, 1)}, welcomes: make(chan *pb.Welcome, 1),
		closing: make(chan struct{}), ended: make(chan error, 1), opened: time.Now(),
	}
	defer s.hand.lost()
	s.out.put(&pb.WorkerMessage{Kind: &pb.WorkerMessage_Hello{Hello: w.hello(drain.Err() != nil)}})
	go s.write()
	go s.read()
	end := s.watch(drain, stop)
	if cause := context.Cause(ctx); cause != nil {
		end.err = cause
	}
	end.goAway = s.goAway
	return end
}

// watch keeps the stream alive and ends it: nothing here waits for user code or for the network.
func (s *stream) watch(drain, stop context.Context) (end ending) {
	cut := func(reason string) {
		s.cancel(errors.New(reason))
		<-s.ended
	}
	select {
	case end.welcome = <-s.welcomes:
	case end.err = <-s.ended:
		return end
	case <-stop.Done():
		cut("the worker stops")
		return end
	case <-time.After(welcomeTimeout):
		cut(fmt.Sprintf("no Welcome came within %s", welcomeTimeout))
		return end
	}
	interval := defaultHeartbeat
	if asked := end.welcome.GetHeartbeatInterval().AsDuration(); asked > 0 {
		interval = min(max(asked, leastHeartbeat), mostHeartbeat)
	}
	slog.Info("connected", "resumed", end.welcome.Resumed)
	beat := time.NewTicker(interval / 2)
	defer beat.Stop()
	drainBegins, stopBegins := drain.Done(), stop.Done()
	draining, giveUp := false, (<-chan time.Time)(nil)
	for {
		if draining && s.hand.count() == 0 {
			return s.goodbye(end, cut)
		}
		select {
		case end.err = <-s.ended:
			return end
		case <-beat.C:
			if silence := time.Since(s.opened) - time.Duration(s.heard.Load()); silence > 2*interval {
				cut(fmt.Sprintf("the executor has been silent for %s", silence.Round(time.Millisecond)))
				return end
			}
			beat := &pb.Heartbeat{AttemptsInHand: uint32(s.hand.count())}
			s.out.put(&pb.WorkerMessage{Kind: &pb.WorkerMessage_Heartbeat{Heartbeat: beat}})
		case <-drainBegins:
			drainBegins, draining = nil, true
			s.hand.drain()
		case <-stopBegins:
			stopBegins, draining, giveUp = nil, true, time.After(goodbyeTimeout)
			s.hand.giveBack()
		case <-giveUp:
			cut(fmt.Sprintf("results were not recorded within %s", goodbyeTimeout))
			return end
		case <-s.hand.emptied:
		}
	}
}

// goodbye closes our side after a drain and waits for the executor to close its own.
func (s *stream) goodbye(end ending, cut func(string)) ending {
	s.hand.goodbye()
	close(s.closing)
	select {
	case <-s.ended:
	case <-time.After(goodbyeTimeout):
		cut("the executor did not close the stream")
	}
	end.clean = true
	return end
}

// write sends what the outbox holds, as few frames as possible, until the stream breaks; `read` learns why it did.
func (s *stream) write() {
	for closing := false; !closing; {
		select {
		case <-s.out.ready:
		case <-s.closing:
			closing = true
		case <-s.call.Context().Done():
			return
		}
		s.framer.maxFrameBytes = s.limit.Load()
		for frame := range s.framer.frames(s.out.take()) {
			if err := s.call.Send(frame); err != nil {
				if !errors.Is(err, io.EOF) { // which stands for a status that `read` is given
					s.cancel(err)
				}
				return
			}
		}
	}
	_ = s.call.CloseSend() // it says that nothing can be sent any more, which is what we want
}

// read handles what comes, in its order, until the stream ends. It never waits for the writer.
func (s *stream) read() {
	s.ended <- func() error {
		joiner, welcomed := joiner{}, false
		for {
			frame, err := s.call.Recv()
			if err != nil {
				return err
			}
			s.heard.Store(int64(time.Since(s.opened)))
			for _, message := range frame.Messages {
				whole, err := joiner.add(message)
				if err != nil {
					return err
				}
				if whole == nil {
					continue
				}
				if welcome := whole.GetWelcome(); (welcome == nil) != welcomed {
					return errors.New("Welcome has to be the executor's first message, and only that")
				}
				welcomed = true
				s.handle(whole)
			}
		}
	}()
}

func (s *stream) handle(message *pb.ExecutorMessage) {
	switch kind := message.Kind.(type) {
	case *pb.ExecutorMessage_Welcome:
		if limits := kind.Welcome.GetLimits(); limits != nil {
			s.limit.Store(limits.MaxFrameBytes)
		}
		s.hand.welcome(kind.Welcome, s.out)
		s.welcomes <- kind.Welcome
	case *pb.ExecutorMessage_RunSteps:
		for _, start := range kind.RunSteps.Attempts {
			s.hand.start(start)
		}
	case *pb.ExecutorMessage_Recorded:
		s.hand.recorded(kind.Recorded)
	case *pb.ExecutorMessage_Cancel:
		s.hand.cancel(kind.Cancel)
	case *pb.ExecutorMessage_GoAway:
		slog.Info("the executor goes away", "reason", kind.GoAway.Reason)
		s.goAway = kind.GoAway
	}
	// All others are about bodies of functions, of which this worker has none, or newer than it.
}
