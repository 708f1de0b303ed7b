//! A worker, from its start to its end: it connects, and connects again, until its drain is over.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tonic::Code;

use crate::hand::Hand;
use crate::proto::Hello;
use crate::security::Security;
use crate::stream::{self, until};
use crate::task::Task;

const PROTOCOL: u32 = 1;
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
/// Well below any session's grace, after which attempts in hand are lost.
const LAST_BACKOFF: Duration = Duration::from_secs(5);
/// No delay is longer than a sixth of the session's grace: one failure to connect must not cost what is in hand. A delay
/// is up to a tenth longer than its backoff.
const GRACE_SHARE: u32 = 7;
/// A connection that lived so long was a good one: the next backoff begins anew.
const STEADY_AFTER: Duration = Duration::from_secs(1);
/// What an executor may ask for, whatever it says: see GoAway and Welcome in the contract.
const LEAST_GRACE: Duration = Duration::from_millis(100);
const LONGEST_AWAY: Duration = Duration::from_secs(5 * 60);

/// What a worker is.
pub struct Options {
    /// HOST:PORT, or several with commas between them, tried in turn.
    pub executor: String,
    pub app: String,
    pub app_version: String,
    /// Attempts at once.
    pub slots: u32,
    pub labels: HashMap<String, String>,
    pub tasks: HashMap<String, Task>,
}

/// Serves tasks until it is told to end.
pub struct Worker {
    options: Options,
    addresses: Vec<String>,
    security: Security,
    instance: String,
    hand: Arc<Hand>,
}

/// Two switches: `drain` finishes what is in hand, `stop` gives back what still runs.
#[derive(Clone)]
pub struct Stopping {
    pub(crate) drain: watch::Receiver<bool>,
    pub(crate) stop: watch::Receiver<bool>,
}

impl Worker {
    /// Makes a worker. Token and TLS are those of the environment (docs/security.md).
    pub fn new(mut options: Options) -> Result<Self, String> {
        let addresses: Vec<String> = options.executor.split(',').map(|each| each.trim().to_owned()).collect();
        let security = Security::from_environment(&addresses)?;
        let hand = Arc::new(Hand::new(std::mem::take(&mut options.tasks)));
        let instance = format!("rust-{}-{:06x}", std::process::id(), random() >> 40);
        Ok(Worker { options, addresses, security, instance, hand })
    }

    /// Serves until the drain is over. Gives an error if the executor refuses the worker, or if results could not be
    /// delivered.
    pub async fn run(self, mut stopping: Stopping) -> Result<(), String> {
        let (mut backoff, mut longest, mut session) = (FIRST_BACKOFF, LAST_BACKOFF, String::new());
        for address in self.addresses.iter().cycle() {
            let draining = *stopping.drain.borrow(); // read at once: while it is borrowed nobody can turn the switch
            if draining && self.hand.count() == 0 {
                break;
            }
            let began = Instant::now();
            let end =
                stream::connect(address, self.hello(&session, draining), &self.hand, &self.security, &stopping).await;
            if end.clean {
                break;
            }
            let status = end.status.unwrap_or_else(|| tonic::Status::unknown("the stream has ended"));
            if refused(status.code()) {
                return Err(format!("the executor refuses this worker: {}", status.message()));
            }
            if let Some(welcomed) = end.session {
                session = welcomed;
                longest = end.grace.map_or(longest, |grace| LAST_BACKOFF.min(grace.max(LEAST_GRACE) / GRACE_SHARE));
                if began.elapsed() > STEADY_AFTER {
                    backoff = FIRST_BACKOFF;
                }
            }
            // Full jitter, but for a tenth: many workers that lost one executor come back spread out.
            let mut delay = backoff / 10 + jitter(backoff);
            if let Some(away) = end.go_away {
                eprintln!("the executor goes away: {}", away.reason);
                let least = away
                    .reconnect_delay
                    .and_then(|delay| delay.try_into().ok())
                    .unwrap_or(Duration::ZERO)
                    .min(LONGEST_AWAY);
                delay += least + jitter(least / 2);
            } else {
                eprintln!("the connection is lost ({}); reconnecting in {delay:?}", status.message());
            }
            backoff = (2 * backoff).min(longest);
            let idle = self.hand.count() == 0;
            tokio::select! {
                () = tokio::time::sleep(delay) => {}
                () = until(&mut stopping.drain), if idle => {}
                () = until(&mut stopping.stop) => {
                    let left = self.hand.count();
                    if left > 0 {
                        return Err(format!("stopped without a connection: {left} attempts are unfinished or not recorded"));
                    }
                }
            }
        }
        Ok(())
    }

    fn hello(&self, session: &str, draining: bool) -> Hello {
        Hello {
            min_protocol: PROTOCOL,
            max_protocol: PROTOCOL,
            sdk_name: "stepwire-rust-example".into(),
            sdk_version: env!("CARGO_PKG_VERSION").into(),
            instance_id: self.instance.clone(),
            app: self.options.app.clone(),
            app_version: self.options.app_version.clone(),
            labels: self.options.labels.clone(),
            tasks: self.hand.task_names(),
            slots: self.options.slots,
            max_invocations: 1, // the least that is allowed; without functions there are none
            resume_session: session.into(),
            attempts_in_hand: self.hand.attempts(),
            draining,
            ..Default::default()
        }
    }
}

/// Whether the stream ended with a status after which the contract forbids to reconnect.
fn refused(code: Code) -> bool {
    matches!(code, Code::InvalidArgument | Code::FailedPrecondition | Code::PermissionDenied | Code::Unauthenticated)
}

/// Gives what `Worker::run` takes. The first SIGTERM or Ctrl-C begins the drain; the second, or `patience`, stops it.
pub fn signals(patience: Duration) -> Result<Stopping, String> {
    let (begin_drain, drain) = watch::channel(false);
    let (begin_stop, stop) = watch::channel(false);
    let mut term = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| error.to_string())?;
    tokio::spawn(async move {
        tokio::select! { _ = term.recv() => {} _ = interrupt.recv() => {} }
        eprintln!("draining");
        begin_drain.send_replace(true);
        tokio::select! { _ = term.recv() => {} _ = interrupt.recv() => {} () = tokio::time::sleep(patience) => {} }
        begin_stop.send_replace(true);
        std::future::pending::<()>().await; // the switches stay
    });
    Ok(Stopping { drain, stop })
}

/// Draws evenly from nothing to a duration.
fn jitter(most: Duration) -> Duration {
    most.mul_f64(random() as f64 / u64::MAX as f64)
}

/// A number that nobody needs to keep secret: the standard library's hashes are seeded at random.
fn random() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}
