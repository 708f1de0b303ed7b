//! A worker for tasks: it connects to an executor, says which tasks it has, and runs what it is given.
//!
//! It is made from the contract (proto/stepwire/v1 and docs/protocol.md) alone. What lives how long shows in its modules:
//! a `Worker` and its `Hand` live as long as the process, a stream as long as a connection.

mod frames;
mod hand;
mod security;
mod stream;
mod task;
mod worker;

pub use task::{Binary, Call, Failure, Json, Task, Value, blocking, task};
pub use worker::{Options, Stopping, Worker, signals};

/// The contract.
pub(crate) mod proto {
    #![allow(clippy::all, clippy::pedantic)]
    tonic::include_proto!("stepwire.v1");
}
