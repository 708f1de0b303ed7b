//! A worker in Rust for the app of examples/mixed_languages.py: its tasks `sha256` and `word-count`.
//!
//!     STEPWIRE_EXECUTOR=127.0.0.1:8377 cargo run

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use rust_worker::{Binary, Call, Failure, Json, Options, Worker, blocking, signals};
use sha2::{Digest, Sha256};

const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::main]
async fn main() {
    if let Err(problem) = serve().await {
        eprintln!("{problem}");
        std::process::exit(1);
    }
}

async fn serve() -> Result<(), String> {
    let executor = std::env::var("STEPWIRE_EXECUTOR").unwrap_or_else(|_| "127.0.0.1:8377".into());
    let worker = Worker::new(Options {
        executor,
        app: "albums".into(),
        app_version: String::new(),
        slots: 4,
        labels: HashMap::from([("language".into(), "rust".into())]),
        tasks: HashMap::from([("sha256".into(), blocking(hash)), ("word-count".into(), blocking(count_words))]),
    })?;
    worker.run(signals(PATIENCE)?).await
}

fn hash(_: Call, Binary(content): Binary) -> Result<Json<String>, Failure> {
    let digest = Sha256::digest(content);
    Ok(Json(digest.iter().map(|byte| format!("{byte:02x}")).collect()))
}

/// Says how often each word of a text occurs, in lower case.
fn count_words(_: Call, Json(text): Json<String>) -> Result<Json<BTreeMap<String, u32>>, Failure> {
    let mut counts = BTreeMap::new();
    for word in text.to_lowercase().split(|each: char| !each.is_alphabetic()).filter(|word| !word.is_empty()) {
        *counts.entry(word.to_owned()).or_default() += 1;
    }
    Ok(Json(counts))
}
