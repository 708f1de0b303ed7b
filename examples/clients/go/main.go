// A client in Go: it sends an event, waits for the run that it starts, and prints the run's output.
//
//	go run . 127.0.0.1:8377 files/arrived '{"contents": ["a", "b"]}'
package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	pb "stepwire.example/client/gen/go/stepwire/v1"
)

const (
	patience = 60 * time.Second
	// Whoever raises --max-output-bytes over its 3 MB gets messages over gRPC's own limit of 4 MiB.
	maxReceivedBytes = 64 << 20
)

func main() {
	if len(os.Args) != 4 {
		fail("usage: client HOST:PORT EVENT JSON")
	}
	output, err := send(os.Args[1], os.Args[2], os.Args[3])
	if err != nil {
		fail(err.Error())
	}
	fmt.Println(output)
}

func send(address, name, data string) (string, error) {
	// Plain text: with TLS and a token, give credentials here and "authorization" as metadata of the calls.
	receive := grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxReceivedBytes))
	channel, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()), receive)
	if err != nil {
		return "", err
	}
	defer channel.Close()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()

	event := &pb.Event{Name: name, Data: &pb.Payload{Data: []byte(data), Encoding: "json"}}
	sent, err := pb.NewEventServiceClient(channel).SendEvents(ctx, &pb.SendEventsRequest{Events: []*pb.Event{event}})
	if err != nil {
		return "", explain(address, err)
	}
	runs := sent.Receipts[0].RunIds
	if len(runs) == 0 {
		return "", fmt.Errorf("no function takes the event %s: has its worker been connected?", name)
	}
	waited, err := pb.NewRunServiceClient(channel).WaitRun(ctx, &pb.WaitRunRequest{RunId: runs[0]})
	if err != nil {
		return "", explain(address, err)
	}
	run := waited.Run
	if run.State != pb.RunState_RUN_STATE_SUCCEEDED {
		return "", fmt.Errorf("run %s has not succeeded: %s: %s", run.Id, run.GetFailure().GetType(), run.GetFailure().GetMessage())
	}
	return string(run.Output.Data), nil
}

func explain(address string, err error) error {
	return fmt.Errorf("the executor at %s: %s: %s", address, status.Code(err), status.Convert(err).Message())
}

func fail(message string) {
	fmt.Fprintln(os.Stderr, message)
	os.Exit(1)
}
