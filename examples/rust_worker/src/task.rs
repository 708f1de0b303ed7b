//! What a task is, and how Rust's values and errors become payloads and failures.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::{Serialize, de::DeserializeOwned};

use crate::proto;

/// `Failure.cause` may go 16 deep.
const MAX_CAUSES: usize = 15;
const MAX_TEXT_BYTES: usize = 64 << 10;

type Running = Pin<Box<dyn Future<Output = Result<proto::Payload, Failure>> + Send>>;

/// Code that runs an attempt; `task` and `blocking` make one.
#[derive(Clone)]
pub struct Task(Arc<dyn Fn(Call, Option<proto::Payload>) -> Running + Send + Sync>);

/// What a task may ask about the attempt that it runs.
#[derive(Clone, Debug)]
pub struct Call {
    pub run_id: String,
    pub step_id: String,
    /// Of the step among those with the same id, from 0.
    pub index: u32,
    /// Of the attempt, from 1.
    pub number: u32,
    /// W3C trace context of the attempt's span, the parent of any that the task makes.
    pub traceparent: String,
    pub(crate) cancelled: Arc<AtomicBool>,
}

impl Call {
    /// Whether nobody wants the result any more. An async task is ended then; a blocking one has to look.
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }
}

/// Makes a task of an async function. When the attempt is no longer wanted it ends at its next `await`.
pub fn task<In, Out, Work, Ending>(run: Work) -> Task
where
    In: Value,
    Out: Value,
    Work: Fn(Call, In) -> Ending + Send + Sync + 'static,
    Ending: Future<Output = Result<Out, Failure>> + Send + 'static,
{
    Task(Arc::new(move |call, input| match In::decode(input) {
        Ok(input) => {
            let ending = run(call, input);
            Box::pin(async move { ending.await?.encode() })
        }
        Err(failure) => Box::pin(std::future::ready(Err(failure))),
    }))
}

/// Makes a task of a function that blocks or computes: it gets a thread.
pub fn blocking<In, Out, Work>(run: Work) -> Task
where
    In: Value + Send + 'static,
    Out: Value + Send + 'static,
    Work: Fn(Call, In) -> Result<Out, Failure> + Send + Sync + 'static,
{
    let run = Arc::new(run);
    task(move |call, input: In| {
        let run = run.clone();
        let thread = tokio::task::spawn_blocking(move || run(call, input));
        async move { thread.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic())) }
    })
}

impl Task {
    pub(crate) fn run(&self, call: Call, input: Option<proto::Payload>) -> Running {
        (self.0)(call, input)
    }
}

/// What tasks are given and give.
pub trait Value: Sized {
    /// Reads what a task is given. An absent or empty payload is JSON null.
    fn decode(payload: Option<proto::Payload>) -> Result<Self, Failure>;
    /// Makes the payload of what a task returned.
    fn encode(self) -> Result<proto::Payload, Failure>;
}

/// A value that travels as JSON.
pub struct Json<T>(pub T);

impl<T: Serialize + DeserializeOwned> Value for Json<T> {
    fn decode(payload: Option<proto::Payload>) -> Result<Self, Failure> {
        let payload = payload.unwrap_or_default();
        if !matches!(payload.encoding.as_str(), "" | "json") {
            return Err(encoding_error(format!(
                "the input is encoded as {:?}, which the task does not take",
                payload.encoding
            )));
        }
        let data = if payload.data.is_empty() { b"null".as_slice() } else { &payload.data };
        let value = serde_json::from_slice(data);
        value.map(Json).map_err(|error| encoding_error(format!("the input does not fit the task: {error}")))
    }

    fn encode(self) -> Result<proto::Payload, Failure> {
        let data = serde_json::to_vec(&self.0);
        let data = data.map_err(|error| encoding_error(format!("the output can't be encoded: {error}")))?;
        Ok(payload(data, "json"))
    }
}

/// Bytes, which travel as they are.
pub struct Binary(pub Vec<u8>);

impl Value for Binary {
    fn decode(given: Option<proto::Payload>) -> Result<Self, Failure> {
        match given.unwrap_or_default() {
            proto::Payload { data, encoding, .. } if encoding == "binary" => Ok(Binary(data)),
            other => {
                Err(encoding_error(format!("the input is encoded as {:?}, and the task takes bytes", other.encoding)))
            }
        }
    }

    fn encode(self) -> Result<proto::Payload, Failure> {
        Ok(payload(self.0, "binary"))
    }
}

fn payload(data: Vec<u8>, encoding: &str) -> proto::Payload {
    proto::Payload { data, encoding: encoding.into(), metadata: HashMap::new() }
}

fn encoding_error(message: String) -> Failure {
    Failure { r#final: true, ..Failure::new("EncodingError", message) }
}

/// Why an attempt failed, and what the executor is to make of it. Every error becomes one, so that `?` works in tasks.
#[derive(Clone, Debug, Default)]
pub struct Failure {
    /// Of the error, e.g. "CardDeclined". That of an ordinary error is the name of its Rust type.
    pub kind: String,
    pub message: String,
    /// True: not to be tried again.
    pub r#final: bool,
    /// The earliest delay before the next attempt.
    pub retry_after: Option<Duration>,
    pub cause: Option<Box<Failure>>,
}

impl Failure {
    /// An error that may be tried again.
    pub fn new(kind: impl Into<String>, message: impl Into<String>) -> Self {
        Failure { kind: kind.into(), message: message.into(), ..Default::default() }
    }

    /// What a task that has panicked reports.
    pub(crate) fn of_panic(reason: Box<dyn std::any::Any + Send>) -> Self {
        let said = reason.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let said = said.or_else(|| reason.downcast_ref::<String>().cloned());
        Failure::new("panic", said.unwrap_or_else(|| "the task panicked".into()))
    }

    pub(crate) fn message(&self) -> proto::Failure {
        proto::Failure {
            r#type: text(&self.kind),
            message: text(&self.message),
            retryable: !self.r#final,
            retry_after: self.retry_after.and_then(|delay| prost_types::Duration::try_from(delay).ok()),
            cause: self.cause.as_ref().map(|cause| Box::new(cause.message())),
            ..Default::default()
        }
    }
}

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        let mut failure = Failure::new(std::any::type_name::<E>(), error.to_string());
        failure.cause = causes(error.source(), MAX_CAUSES);
        failure
    }
}

fn causes(error: Option<&dyn std::error::Error>, deep: usize) -> Option<Box<Failure>> {
    let error = error.filter(|_| deep > 0)?;
    let mut failure = Failure::new("Error", error.to_string()); // of a source Rust does not tell the type
    failure.cause = causes(error.source(), deep - 1);
    Some(Box::new(failure))
}

/// Makes words fit for a message: not so long that a failure would pass the limit of what fragments hold.
fn text(words: &str) -> String {
    match words.char_indices().find(|(at, _)| *at > MAX_TEXT_BYTES) {
        Some((at, _)) => format!("{}…", &words[..at]),
        None => words.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ordinary_error_is_named_after_its_type_and_may_be_tried_again() {
        let failure: Failure = "x".parse::<u8>().unwrap_err().into();
        assert_eq!(failure.kind, "core::num::error::ParseIntError");
        assert!(failure.message().retryable);
    }

    #[test]
    fn what_does_not_fit_a_task_is_never_tried_again() {
        let Err(failure) = Json::<u8>::decode(Some(payload(b"\"x\"".to_vec(), "json"))) else { panic!("it was read") };
        assert_eq!(failure.kind, "EncodingError");
        assert!(!failure.message().retryable);
    }

    #[test]
    fn an_absent_input_is_null() {
        assert!(Json::<Option<u8>>::decode(None).is_ok_and(|read| read.0.is_none()));
    }

    #[test]
    fn words_are_cut_between_characters() {
        let cut = text(&"ü".repeat(MAX_TEXT_BYTES));
        assert!(cut.len() <= MAX_TEXT_BYTES + 8);
        assert!(cut.ends_with("ü…"));
    }
}
