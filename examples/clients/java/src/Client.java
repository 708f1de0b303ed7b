import com.google.protobuf.ByteString;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.StatusRuntimeException;
import java.nio.charset.StandardCharsets;
import java.util.concurrent.TimeUnit;
import stepwire.v1.Event;
import stepwire.v1.EventServiceGrpc;
import stepwire.v1.Payload;
import stepwire.v1.Run;
import stepwire.v1.RunServiceGrpc;
import stepwire.v1.RunState;
import stepwire.v1.SendEventsRequest;
import stepwire.v1.WaitRunRequest;

/** A client in Java: it sends an event, waits for the run that it starts, and prints the run's output. */
public final class Client {
  private static final long PATIENCE_SECONDS = 60;

  /** Whoever raises --max-output-bytes over its 3 MB gets messages over gRPC's own limit of 4 MiB. */
  private static final int MAX_RECEIVED_BYTES = 64 << 20;

  public static void main(String[] arguments) throws InterruptedException {
    if (arguments.length != 3) {
      fail("usage: Client HOST:PORT EVENT JSON");
    }
    String address = arguments[0];
    // Plain text: with TLS and a token, give other credentials here and a CallCredentials with the calls.
    ManagedChannel channel =
        Grpc.newChannelBuilder(address, InsecureChannelCredentials.create())
            .maxInboundMessageSize(MAX_RECEIVED_BYTES)
            .build();
    try {
      System.out.println(send(channel, arguments[1], arguments[2]));
    } catch (StatusRuntimeException error) {
      String cause = error.getCause() == null ? "" : " (" + error.getCause().getMessage() + ")";
      fail("the executor at " + address + ": " + error.getMessage() + cause);
    } catch (IllegalStateException error) {
      fail(error.getMessage());
    } finally {
      channel.shutdownNow();
    }
  }

  private static String send(ManagedChannel channel, String name, String data) {
    Payload payload = Payload.newBuilder().setData(ByteString.copyFromUtf8(data)).setEncoding("json").build();
    Event event = Event.newBuilder().setName(name).setData(payload).build();
    var sent =
        EventServiceGrpc.newBlockingStub(channel)
            .withDeadlineAfter(PATIENCE_SECONDS, TimeUnit.SECONDS)
            .sendEvents(SendEventsRequest.newBuilder().addEvents(event).build());
    var runs = sent.getReceipts(0).getRunIdsList();
    if (runs.isEmpty()) {
      throw new IllegalStateException("no function takes the event " + name + ": has its worker been connected?");
    }
    Run run =
        RunServiceGrpc.newBlockingStub(channel)
            .withDeadlineAfter(PATIENCE_SECONDS, TimeUnit.SECONDS)
            .waitRun(WaitRunRequest.newBuilder().setRunId(runs.get(0)).build())
            .getRun();
    if (run.getState() != RunState.RUN_STATE_SUCCEEDED) {
      var failure = run.getFailure();
      throw new IllegalStateException(
          "run " + run.getId() + " has not succeeded: " + failure.getType() + ": " + failure.getMessage());
    }
    return run.getOutput().getData().toString(StandardCharsets.UTF_8);
  }

  private static void fail(String message) {
    System.err.println(message);
    System.exit(1);
  }
}
