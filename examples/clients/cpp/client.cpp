// A client in C++: it sends an event, waits for the run that it starts, and prints the run's output.
//
//   ./client 127.0.0.1:8377 files/arrived '{"contents": ["a", "b"]}'
#include <grpcpp/grpcpp.h>

#include <chrono>
#include <iostream>
#include <stdexcept>
#include <string>

#include "stepwire/v1/event.grpc.pb.h"
#include "stepwire/v1/run.grpc.pb.h"

namespace v1 = stepwire::v1;

constexpr std::chrono::seconds kPatience(60);
// Whoever raises --max-output-bytes over its 3 MB gets messages over gRPC's own limit of 4 MiB.
constexpr int kMaxReceivedBytes = 64 << 20;
const char* const kCodes[] = {"OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND",
                              "ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED",
                              "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED"};

void check(const grpc::Status& status, const std::string& address) {
  if (status.ok()) return;
  throw std::runtime_error("the executor at " + address + ": " + kCodes[status.error_code()] + ": " + status.error_message());
}

std::string send(const std::string& address, const std::string& name, const std::string& data) {
  // Plain text: with TLS and a token, give other credentials here and "authorization" as metadata of the calls.
  grpc::ChannelArguments options;
  options.SetMaxReceiveMessageSize(kMaxReceivedBytes);
  auto channel = grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), options);
  const auto deadline = std::chrono::system_clock::now() + kPatience;

  v1::SendEventsRequest events;
  v1::Event* event = events.add_events();
  event->set_name(name);
  event->mutable_data()->set_data(data);
  event->mutable_data()->set_encoding("json");
  v1::SendEventsResponse sent;
  grpc::ClientContext sending;
  sending.set_deadline(deadline);
  check(v1::EventService::NewStub(channel)->SendEvents(&sending, events, &sent), address);
  if (sent.receipts(0).run_ids().empty()) {
    throw std::runtime_error("no function takes the event " + name + ": has its worker been connected?");
  }

  v1::WaitRunRequest wanted;
  wanted.set_run_id(sent.receipts(0).run_ids(0));
  v1::WaitRunResponse waited;
  grpc::ClientContext waiting;
  waiting.set_deadline(deadline);
  check(v1::RunService::NewStub(channel)->WaitRun(&waiting, wanted, &waited), address);
  const v1::Run& run = waited.run();
  if (run.state() != v1::RUN_STATE_SUCCEEDED) {
    throw std::runtime_error("run " + run.id() + " has not succeeded: " + run.failure().type() + ": " + run.failure().message());
  }
  return run.output().data();
}

int main(int count, char** words) {
  if (count != 4) {
    std::cerr << "usage: client HOST:PORT EVENT JSON\n";
    return 1;
  }
  try {
    std::cout << send(words[1], words[2], words[3]) << "\n";
  } catch (const std::runtime_error& error) {
    std::cerr << error.what() << "\n";
    return 1;
  }
}
