//! The worker that the conformance kit runs: the tasks of the app `conformance`, as docs/conformance.md lists them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rust_worker::{Call, Failure, Json, Options, Worker, blocking, signals, task};
use serde::{Deserialize, Serialize};
use serde_json::Value;

static BEGUN: AtomicU64 = AtomicU64::new(0);

#[derive(Deserialize, Serialize)]
struct Pair {
    a: f64,
    b: f64,
}

#[derive(Deserialize, Serialize)]
struct Big {
    bytes: usize,
}

#[derive(Deserialize, Serialize)]
struct Wanted {
    seconds: f64,
}

#[derive(Deserialize, Serialize)]
struct How {
    how: String,
}

#[tokio::main]
async fn main() {
    if let Err(problem) = serve().await {
        eprintln!("{problem}");
        std::process::exit(1);
    }
}

async fn serve() -> Result<(), String> {
    let tasks = [
        ("echo", task(|_, Json(input): Json<Value>| async { Ok(Json(input)) })),
        ("add", task(|_, Json(both): Json<Pair>| async move { Ok(Json(both.a + both.b)) })),
        ("length", task(|_, Json(text): Json<String>| async move { Ok(Json(text.chars().count())) })),
        ("big", task(|_, Json(size): Json<Big>| async move { Ok(Json("x".repeat(size.bytes))) })),
        ("unencodable", task(|_, Json(_): Json<Value>| async { Ok(Json(HashMap::from([((1, 2), 3)]))) })),
        ("fail", task(|_, Json(wanted): Json<How>| async move { fail(&wanted.how) })),
        ("sleep", task(sleep)),
        ("block", blocking(block)),
        ("count", task(|_, Json(_): Json<Value>| async { Ok(Json(BEGUN.fetch_add(1, Ordering::SeqCst) + 1)) })),
    ];
    let worker = Worker::new(Options {
        executor: std::env::var("STEPWIRE_EXECUTOR").map_err(|_| "STEPWIRE_EXECUTOR is not set".to_owned())?,
        app: "conformance".into(),
        app_version: String::new(),
        slots: 4,
        labels: HashMap::new(),
        tasks: tasks.into_iter().map(|(name, task)| (name.to_owned(), task)).collect(),
    })?;
    worker.run(signals(Duration::from_secs(10))?).await
}

fn fail(how: &str) -> Result<Json<Value>, Failure> {
    Err(match how {
        "retryable" => Failure::new("Error", "not now"),
        "final" => Failure { r#final: true, ..Failure::new("NonRetriableError", "never") },
        "later" => Failure { retry_after: Some(Duration::from_secs(7)), ..Failure::new("RetryAfterError", "later") },
        _ => Failure::new("Error", format!("there is no way to fail called {how:?}")),
    })
}

async fn sleep(_: Call, Json(wanted): Json<Wanted>) -> Result<Json<String>, Failure> {
    tokio::time::sleep(Duration::from_secs_f64(wanted.seconds)).await;
    Ok(Json("slept".into()))
}

/// Keeps a thread busy, and looks at nothing.
fn block(_: Call, Json(wanted): Json<Wanted>) -> Result<Json<String>, Failure> {
    let end = Instant::now() + Duration::from_secs_f64(wanted.seconds);
    while Instant::now() < end {}
    Ok(Json("blocked".into()))
}
