//! One stream to the executor, from Hello to its end: a task that writes, and a loop that reads and keeps watch.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Status, Streaming};

use crate::frames::{Framer, Joiner, MAX_MESSAGE_BYTES};
use crate::hand::{Hand, Outbox};
use crate::proto::executor_message::Kind;
use crate::proto::worker_message;
use crate::proto::worker_service_client::WorkerServiceClient;
use crate::proto::{ExecutorFrame, GoAway, Heartbeat, Hello, Welcome, WorkerFrame};
use crate::security::Security;
use crate::worker::Stopping;

const WELCOME_TIMEOUT: Duration = Duration::from_secs(10);
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(5);
/// What an executor may ask for, whatever it says: see Welcome in the contract.
const DEFAULT_HEARTBEAT: Duration = Duration::from_secs(3);
const LEAST_HEARTBEAT: Duration = Duration::from_millis(10);
const MOST_HEARTBEAT: Duration = Duration::from_secs(60);
/// Whatever limit an executor sets for its frames, fragments included.
const MAX_RECEIVED_BYTES: usize = MAX_MESSAGE_BYTES + (1 << 20);

/// How a stream ended.
#[derive(Default)]
pub struct Ending {
    /// The session of its Welcome, if one came.
    pub session: Option<String>,
    /// How long the executor keeps that session.
    pub grace: Option<Duration>,
    pub go_away: Option<GoAway>,
    /// The drain is over.
    pub clean: bool,
    pub status: Option<Status>,
}

/// Opens a stream, and holds it until it ends or the drain is over.
pub async fn connect(
    address: &str,
    hello: Hello,
    hand: &Arc<Hand>,
    security: &Security,
    stopping: &Stopping,
) -> Ending {
    let mut stream = Open {
        hand,
        out: Arc::default(),
        limit: Arc::default(),
        joiner: Joiner::default(),
        heard: Instant::now(),
        ending: Ending::default(),
        interval: Duration::ZERO,
    };
    if let Err(status) = stream.hold(address, hello, security, stopping.clone()).await {
        stream.ending.status = Some(status);
    }
    hand.lost();
    stream.ending
}

/// A connection that is open, or about to be.
struct Open<'a> {
    hand: &'a Arc<Hand>,
    out: Arc<Outbox>,
    /// `Limits.max_frame_bytes`; none for Hello, which is never cut.
    limit: Arc<AtomicUsize>,
    joiner: Joiner,
    /// When the last frame came.
    heard: Instant,
    ending: Ending,
    interval: Duration,
}

impl Open<'_> {
    /// Gives an error when the stream ends otherwise than by our own goodbye.
    async fn hold(
        &mut self,
        address: &str,
        hello: Hello,
        security: &Security,
        mut stopping: Stopping,
    ) -> Result<(), Status> {
        self.out.put(worker_message::Kind::Hello(hello));
        // The writer ends our side of the stream when it is dropped, or told to close.
        let (close, closing) = watch::channel(false);
        let (frames, sent) = mpsc::channel(1);
        let _writer = tokio::spawn(write(self.out.clone(), self.limit.clone(), frames, closing));
        let mut incoming = tokio::select! {
            opened = tokio::time::timeout(WELCOME_TIMEOUT, self.open(address, security, sent)) => {
                opened.map_err(|_| Status::unavailable(format!("no Welcome came within {WELCOME_TIMEOUT:?}")))??
            }
            () = until(&mut stopping.stop) => return Err(Status::cancelled("the worker stops")),
        };
        let mut beat = tokio::time::interval(self.interval / 2);
        let (mut draining, mut stopped, mut give_up) = (false, false, None);
        loop {
            if draining && self.hand.count() == 0 {
                return self.goodbye(&close, &mut incoming).await;
            }
            tokio::select! {
                frame = incoming.message() => self.handle(frame?)?,
                _ = beat.tick() => self.beat()?,
                () = until(&mut stopping.drain), if !draining => {
                    draining = true;
                    self.hand.drain();
                }
                () = until(&mut stopping.stop), if !stopped => {
                    (draining, stopped) = (true, true);
                    give_up = Some(Instant::now() + GOODBYE_TIMEOUT);
                    self.hand.give_back();
                }
                () = sleep_until(give_up), if give_up.is_some() => {
                    return Err(Status::cancelled(format!("results were not recorded within {GOODBYE_TIMEOUT:?}")));
                }
                () = self.hand.emptied.notified() => {}
            }
        }
    }

    /// Connects, and reads up to the Welcome.
    async fn open(
        &mut self,
        address: &str,
        security: &Security,
        sent: mpsc::Receiver<WorkerFrame>,
    ) -> Result<Streaming<ExecutorFrame>, Status> {
        let endpoint = security.endpoint(address).map_err(Status::invalid_argument)?;
        let channel = endpoint.connect().await.map_err(|error| Status::unavailable(chain(&error)))?;
        let mut request = Request::new(ReceiverStream::new(sent));
        if let Some(token) = &security.authorization {
            request.metadata_mut().insert("authorization", token.clone());
        }
        let mut client = WorkerServiceClient::new(channel).max_decoding_message_size(MAX_RECEIVED_BYTES);
        let mut incoming = client.connect(request).await?.into_inner();
        while self.ending.session.is_none() {
            let frame = incoming.message().await?;
            self.handle(frame)?;
        }
        Ok(incoming)
    }

    fn beat(&mut self) -> Result<(), Status> {
        let silence = self.heard.elapsed();
        if silence > 2 * self.interval {
            return Err(Status::deadline_exceeded(format!("the executor has been silent for {silence:?}")));
        }
        let attempts_in_hand = self.hand.count() as u32;
        self.out.put(worker_message::Kind::Heartbeat(Heartbeat { attempts_in_hand, ..Default::default() }));
        Ok(())
    }

    /// Closes our side after a drain, and waits for the executor to close its own.
    async fn goodbye(
        &mut self,
        close: &watch::Sender<bool>,
        incoming: &mut Streaming<ExecutorFrame>,
    ) -> Result<(), Status> {
        self.hand.goodbye();
        close.send_replace(true);
        self.ending.clean = true;
        let end = async { while let Ok(Some(_)) = incoming.message().await {} };
        let _ = tokio::time::timeout(GOODBYE_TIMEOUT, end).await;
        Ok(())
    }

    fn handle(&mut self, frame: Option<ExecutorFrame>) -> Result<(), Status> {
        let frame = frame.ok_or_else(|| Status::new(Code::Ok, "the executor closed the stream"))?;
        self.heard = Instant::now();
        for message in frame.messages {
            let Some(kind) = self.joiner.add(message).map_err(Status::internal)? else { continue };
            if matches!(kind, Kind::Welcome(_)) == self.ending.session.is_some() {
                return Err(Status::internal("Welcome has to be the executor's first message, and only that"));
            }
            self.take(kind);
        }
        Ok(())
    }

    fn take(&mut self, kind: Kind) {
        match kind {
            Kind::Welcome(welcome) => self.welcome(welcome),
            Kind::RunSteps(steps) => steps.attempts.into_iter().for_each(|start| self.hand.start(start)),
            Kind::Recorded(recorded) => self.hand.recorded(&recorded),
            Kind::Cancel(cancel) => self.hand.cancel(&cancel),
            Kind::GoAway(away) => self.ending.go_away = Some(away),
            // All others are about bodies of functions, of which this worker has none.
            Kind::Invoke(_) | Kind::JournalChunk(_) | Kind::Resume(_) | Kind::Fragment(_) => {}
        }
    }

    fn welcome(&mut self, welcome: Welcome) {
        self.interval = positive(welcome.heartbeat_interval)
            .map_or(DEFAULT_HEARTBEAT, |interval| interval.clamp(LEAST_HEARTBEAT, MOST_HEARTBEAT));
        let limit = welcome.limits.as_ref().map_or(0, |limits| limits.max_frame_bytes);
        self.limit.store(usize::try_from(limit).unwrap_or(0), Ordering::Relaxed);
        self.hand.welcome(&welcome, self.out.clone());
        eprintln!("connected, {}", if welcome.resumed { "with the session of before" } else { "with a new session" });
        self.ending.grace = positive(welcome.session_grace);
        self.ending.session = Some(welcome.session_id);
    }
}

/// A duration of the executor's, if it is above 0.
fn positive(duration: Option<prost_types::Duration>) -> Option<Duration> {
    duration.and_then(|duration| Duration::try_from(duration).ok()).filter(|duration| !duration.is_zero())
}

/// Sends what the outbox holds, as few frames as possible, until the stream breaks or is to be closed.
async fn write(
    out: Arc<Outbox>,
    limit: Arc<AtomicUsize>,
    frames: mpsc::Sender<WorkerFrame>,
    mut closing: watch::Receiver<bool>,
) {
    let mut framer = Framer::default();
    let mut last = false;
    while !last {
        tokio::select! {
            biased;
            () = out.ready.notified() => {}
            changed = closing.changed() => {
                if changed.is_err() {
                    return; // nobody holds the stream any more
                }
                last = true;
            }
        }
        for frame in framer.frames(out.take(), limit.load(Ordering::Relaxed)) {
            if frames.send(frame).await.is_err() {
                return;
            }
        }
    }
}

/// Waits until a switch is on.
pub async fn until(switch: &mut watch::Receiver<bool>) {
    if switch.wait_for(|on| *on).await.is_err() {
        std::future::pending::<()>().await; // nobody is left who could turn it on
    }
}

async fn sleep_until(at: Option<Instant>) {
    if let Some(at) = at {
        tokio::time::sleep_until(at.into()).await;
    }
}

/// Writes an error with its causes: tonic's own says "transport error" only.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |each| each.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
