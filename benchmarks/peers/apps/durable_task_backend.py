"""The backend that Durable Task's Python SDK ships for tests: in memory, served by gRPC. `… PORT`.

It is served here rather than by its own `start`, which listens on every interface, and has ten threads: each waiting
client takes one, so that a hundred of them would stop it.
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

import grpc
from durabletask.internal import orchestrator_service_pb2_grpc as contract
from durabletask.testing.in_memory_backend import InMemoryOrchestrationBackend

THREADS = 256
LONGEST_HISTORY = 1_000_000
"""Events of a run: more than any workload has."""

if __name__ == "__main__":
    server = grpc.server(ThreadPoolExecutor(THREADS))
    backend = InMemoryOrchestrationBackend(LONGEST_HISTORY)
    contract.add_TaskHubSidecarServiceServicer_to_server(backend, server)
    server.add_insecure_port(f"127.0.0.1:{sys.argv[1]}")
    server.start()
    server.wait_for_termination()
