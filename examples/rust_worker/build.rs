//! The contract's code, made at each build from `proto/stepwire/v1`: protox parses it, so no `protoc` is needed.

use std::path::PathBuf;

const PROTO: &str = "../../proto";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed={PROTO}/stepwire/v1");
    let files = protox::compile(["stepwire/v1/worker.proto"], [PathBuf::from(PROTO)])?;
    tonic_prost_build::configure()
        .build_server(false)
        // WorkerService has a method `Connect`, and tonic's own `connect` would be another function of that name.
        .build_transport(false)
        .compile_fds(files)?;
    Ok(())
}
