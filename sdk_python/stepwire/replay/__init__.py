"""The replay machine: runs a function's body over its journal. No I/O, no gRPC, no clock of its own."""
