//! The NATS JetStream KV store.
//!
//! A bucket is a stream `KV_<bucket>` with the subjects `$KV.<bucket>.<key>`, as for all NATS clients.
//! One thread serves the connection (`client`). Another thread supervises it and serves all watches
//! (`session`). Each watch uses one more thread while it lists (`watch`).

mod bucket;
mod client;
mod consumer;
mod failure;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzz;
mod jetstream;
mod link;
mod options;
mod queue_delay;
mod read;
mod replay_state;
mod servers;
mod session;
#[cfg(test)]
mod tests;
mod upgrade;
mod watch;
mod watches;
mod write;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, unbounded};
use parking_lot::Mutex;

use self::bucket::BucketProbe;
use self::consumer::Delivery;
use self::failure::{RequestFailure, number};
use self::jetstream::{DEFAULT_API, Stream, StreamInfo};
use self::session::{Session, Supervisor};
use self::watches::WatchRequest;
use super::{
    Batch, Bucket, BucketConfig, BucketStatus, Capabilities, Entry, Health, HealthEvents, Listing,
    Outcome, Refusal, Store, Watch, Write,
};
use crate::error::{Code, Error, Result};
use crate::threads::Thread;
use crate::threads::cancel;
use crate::types::{key_fault, truncated};
use crate::wire::PARTI_HANDOFF;

pub use self::client::auth::NatsCredentials;
pub use self::options::{NatsOptions, Placement, Storage};
pub use self::servers::ServerReport;
pub use self::upgrade::{BucketReport, BucketsReport, FeatureReport};

/// Maximum time to drop a store.
const DROP_TIMEOUT: Duration = Duration::from_secs(5);
/// Why a stop has timed out.
const CALLBACK_BUSY: &str = "thread dv-nats-io is still busy: the NATS credentials callback has not \
     returned; call again";

/// A store on NATS JetStream, server 2.10 or newer. Dropping it stops it within 5 s.
///
/// ```no_run
/// use std::sync::Arc;
/// use std::time::{Duration, Instant};
///
/// use divvy::Manager;
/// use divvy::store::nats::{NatsOptions, NatsStore};
///
/// # fn main() -> divvy::Result<()> {
/// let options = NatsOptions::new(["nats://127.0.0.1:4222"]).name("tool-server");
/// let store = NatsStore::connect(options, Instant::now() + Duration::from_secs(10))?;
/// let manager = Manager::builder(Arc::new(store)).build()?;
/// # drop(manager);
/// # Ok(())
/// # }
/// ```
pub struct NatsStore {
    session: Arc<Session>,
    supervisor: Thread,
    watches: Sender<WatchRequest>,
    proven: Mutex<[Option<BucketProbe>; 4]>,
    /// The JetStream domains of the buckets, where known.
    domains: Mutex<[Option<String>; 4]>,
}

impl NatsStore {
    /// Connects to NATS and keeps connected until stopped.
    ///
    /// Blocks until the first connection is established or the deadline passes. Unreachable servers
    /// are retried until then. Rejected credentials end the call immediately.
    ///
    /// # Errors
    /// `InvalidConfig`, `Unauthorized`, `Unsupported` (server without headers or TLS),
    /// `Unavailable`; `Cancelled`. Nothing is left behind.
    pub fn connect(options: NatsOptions, deadline: Instant) -> Result<Self> {
        let store = Self::open(options)?;
        // An early return drops and thereby stops the store.
        store.wait_connected(deadline)?;
        store.wait_routed(deadline)?;
        Ok(store)
    }

    /// As [`NatsStore::connect`], but does not wait for the first connection. Until then every call
    /// fails as during an outage. For workers that can serve a cached assignment meanwhile.
    ///
    /// # Errors
    /// `InvalidConfig`; `Unavailable` if no thread can be created.
    pub fn open(options: NatsOptions) -> Result<Self> {
        options.check()?;
        let session = Session::new(options);
        let (watches, requests) = watches::requests();
        let supervisor = Supervisor::new(Arc::clone(&session), requests);
        let supervisor = Thread::spawn("dv-nats", move || supervisor.run())?;
        Ok(Self {
            session,
            supervisor,
            watches,
            proven: Mutex::default(),
            domains: Mutex::default(),
        })
    }

    /// Waits for the first connection.
    ///
    /// # Errors
    /// As [`NatsStore::connect`]. The store continues to connect in the background.
    pub fn wait_connected(&self, deadline: Instant) -> Result<()> {
        self.session.wait_connected(deadline)
    }

    fn stream(&self, bucket: Bucket) -> Result<Stream, RequestFailure> {
        let options = &self.session.options;
        let mut stream = Stream::new(self.session.link()?, options.stream(bucket), options);
        if stream.domain.is_none() {
            stream
                .domain
                .clone_from(&self.domains.lock()[bucket as usize]);
        }
        Ok(stream)
    }

    /// Waits until the JetStream domain or API prefix of the options answers, if one is set.
    fn wait_routed(&self, deadline: Instant) -> Result<()> {
        let options = &self.session.options;
        while options.api() != DEFAULT_API {
            let looked_up = self
                .stream_by(Bucket::Assignment, deadline)
                .map(|stream| (stream.info(deadline), stream));
            let failure = match looked_up {
                Ok((Err(RequestFailure::NoResponders), stream)) => {
                    let pause = Instant::now() + bucket::RETRY_AFTER;
                    if pause < deadline {
                        cancel::recv_deadline(&stream.link.dead, pause).ok();
                        continue;
                    }
                    bucket::unreachable(options)
                }
                Ok((Err(RequestFailure::TimedOut), _)) | Err(RequestFailure::TimedOut) => {
                    bucket::unreachable(options)
                }
                // Losing the connection immediately is an ordinary outage.
                Ok(_) => return Ok(()),
                Err(failure @ (RequestFailure::NotRunning | RequestFailure::Cancelled)) => failure,
                Err(_) => return Ok(()),
            };
            return Err(failure.into_error("connect"));
        }
        Ok(())
    }

    /// Returns the connection for a call, unless its deadline has passed.
    fn stream_by(&self, bucket: Bucket, deadline: Instant) -> Result<Stream, RequestFailure> {
        let stream = self.stream(bucket);
        match stream {
            Err(RequestFailure::NotRunning) => stream,
            _ if cancel::is_cancelled() => Err(RequestFailure::Cancelled),
            _ if deadline <= Instant::now() => Err(RequestFailure::TimedOut),
            _ => stream,
        }
    }

    fn ensure_bucket(
        &self,
        bucket: Bucket,
        config: BucketConfig,
        deadline: Instant,
    ) -> Result<StreamInfo, RequestFailure> {
        let mut stream = self.stream_by(bucket, deadline)?;
        let options = &self.session.options;
        // The bucket may have been re-created in another domain.
        stream.domain.clone_from(&options.domain);
        let info = bucket::ensure(&stream, bucket, config, options, deadline)?;
        self.domains.lock()[bucket as usize] = Some(info.domain.clone());
        Ok(info)
    }

    /// Returns the capabilities of the bucket, probing them if necessary.
    fn prove(
        &self,
        bucket: Bucket,
        stream: &Stream,
        deadline: Instant,
    ) -> Result<(StreamInfo, BucketProbe), RequestFailure> {
        let info = stream.info(deadline)?;
        let known = self.proven.lock()[bucket as usize].clone();
        let subject = self.session.options.subject(bucket, "divvy.probe");
        let proven = bucket::prove(stream, &subject, &info, known, deadline)?;
        self.proven.lock()[bucket as usize] = Some(proven.clone());
        Ok((info, proven))
    }

    /// Returns the known capabilities of the bucket, if they are still valid without a probe.
    fn known(&self, bucket: Bucket, stream: &Stream) -> Option<BucketProbe> {
        let known = self.proven.lock()[bucket as usize].clone()?;
        known.is_certain(&stream.link).then_some(known)
    }
}

impl Store for NatsStore {
    fn identity(&self) -> String {
        let options = &self.session.options;
        let route = options.domain.as_ref().or(options.api_prefix.as_ref());
        let route = route.map_or("", String::as_str);
        format!("{route} {}", options.buckets.join(" "))
            .trim_start()
            .to_owned()
    }

    fn fleet(&self) -> String {
        self.session.options.fleet.clone()
    }

    fn hand_over_claims(&self, deadline: Instant) -> Result<u64> {
        let failed = |failure: RequestFailure| failure.into_error("read").with_key(PARTI_HANDOFF);
        let mut stream = self
            .stream_by(Bucket::Assignment, deadline)
            .map_err(failed)?;
        stream.name = format!("KV_{PARTI_HANDOFF}");
        match stream.info(deadline) {
            Ok(info) => Ok(info.state.messages),
            Err(failure) if failure.is_api(number::STREAM_NOT_FOUND) => Ok(0),
            Err(failure) => Err(failed(failure)),
        }
    }

    fn ensure(
        &self,
        bucket: Bucket,
        config: BucketConfig,
        deadline: Instant,
    ) -> Result<BucketStatus> {
        let options = &self.session.options;
        let name = &options.buckets[bucket as usize];
        let info = self
            .ensure_bucket(bucket, config, deadline)
            .map_err(|failure| failure.into_error("ensure").with_key(name.as_str()))?;
        let status = bucket::status(name, &info, config, options);
        for warning in &status.warnings {
            log::warn!(bucket = name.as_str(); "unwise bucket settings: {warning}");
        }
        Ok(status)
    }

    fn capabilities(&self, bucket: Bucket, deadline: Instant) -> Result<Capabilities> {
        let failed = |failure: RequestFailure| failure.into_error("capabilities");
        let stream = self.stream_by(bucket, deadline).map_err(failed)?;
        let (info, proven) = self.prove(bucket, &stream, deadline).map_err(failed)?;
        let server = &stream.link.info;
        let version = info.server_version().unwrap_or(&server.version);
        let level = info.level();
        Ok(Capabilities {
            batch_max: bucket::batch_max(proven.batches),
            value_max: proven.value_max,
            description: format!(
                "NATS {version} (API level {level}) by {}",
                server.server_name
            ),
        })
    }

    fn read(&self, bucket: Bucket, key: &str, deadline: Instant) -> Result<Option<Entry>> {
        check_key("read", key)?;
        let subject = self.session.options.subject(bucket, key);
        self.stream_by(bucket, deadline)
            .and_then(|stream| read::read(&stream, &subject, key, deadline))
            .map_err(|failure| failure.into_error("read").with_key(key))
    }

    fn list(&self, bucket: Bucket, prefix: &str, deadline: Instant) -> Result<Listing> {
        check_prefix("list", prefix)?;
        let (filter, subject_prefix) = self.filter(bucket, prefix);
        self.stream_by(bucket, deadline)
            .and_then(|stream| read::list(&stream, &filter, subject_prefix.len(), deadline))
            .map(|snapshot| snapshot.listing)
            .map_err(|failure| failure.into_error("list").with_key(prefix))
    }

    fn write(&self, bucket: Bucket, writes: &[Write], deadline: Instant) -> Vec<Outcome> {
        let stream = match self.stream_by(bucket, deadline) {
            Ok(stream) => stream,
            Err(failure) => return vec![failure.into_outcome(false); writes.len()],
        };
        let target = write::Target {
            stream: &stream,
            prefix: &self.session.options.subject(bucket, ""),
            value_max: bucket::value_max(&stream, None),
        };
        target.write(writes, deadline)
    }

    fn write_batch(&self, bucket: Bucket, batch: &Batch, deadline: Instant) -> Outcome {
        let stream = match self.stream_by(bucket, deadline) {
            Ok(stream) => stream,
            Err(failure) => return failure.into_outcome(false),
        };
        let known = self.known(bucket, &stream);
        let is_known = known.is_some();
        let proven = match known {
            Some(known) => known,
            None => match self.prove(bucket, &stream, deadline) {
                Ok((_, proven)) => proven,
                Err(failure) => return failure.into_outcome(false),
            },
        };
        let batch_max = bucket::batch_max(proven.batches);
        if !proven.batches || batch.writes.len() > batch_max {
            return Outcome::Refused(Refusal::Invalid(format!(
                "a batch of {} writes exceeds the limit of the bucket, {batch_max}",
                batch.writes.len()
            )));
        }
        let target = write::Target {
            stream: &stream,
            prefix: &self.session.options.subject(bucket, ""),
            value_max: proven.value_max,
        };
        let outcome = target.write_batch(batch, is_known, deadline);
        if is_known
            && !matches!(outcome, Outcome::Done(_))
            && let Some(proven) = &mut self.proven.lock()[bucket as usize]
        {
            proven.expire();
        }
        outcome
    }

    fn watch(&self, bucket: Bucket, prefix: &str) -> Result<Watch> {
        check_prefix("watch", prefix)?;
        let (filter, _) = self.filter(bucket, prefix);
        // Heartbeats are frequent and not urgent: pull them in bursts.
        let delivery = match bucket {
            Bucket::Heartbeat => Delivery::Pulled,
            _ => Delivery::Pushed,
        };
        self.watch_filtered(bucket, filter, delivery)
    }

    fn watch_key(&self, bucket: Bucket, key: &str) -> Result<Watch> {
        check_key("watch", key)?;
        let filter = self.session.options.subject(bucket, key);
        self.watch_filtered(bucket, filter, Delivery::Pushed)
    }

    fn health(&self) -> Health {
        self.session.health.lock().now().clone()
    }

    fn health_events(&self) -> HealthEvents {
        self.session.health.lock().listen()
    }

    fn stop(&self, deadline: Instant) -> Result<()> {
        self.session
            .check_may_stop()
            .map_err(|error| error.with_operation("stop"))?;
        self.session.begin_stop();
        self.supervisor.join(deadline).map_err(|error| {
            let error = match error.code() {
                Code::TimedOut if self.session.is_in_callback() => {
                    Error::new(Code::TimedOut, CALLBACK_BUSY)
                }
                _ => error,
            };
            error.with_operation("stop")
        })
    }
}

impl NatsStore {
    fn watch_filtered(&self, bucket: Bucket, filter: String, delivery: Delivery) -> Result<Watch> {
        if self.session.is_stopping() {
            return Err(RequestFailure::NotRunning.into_error("watch"));
        }
        let (events, receiver) = unbounded();
        let target = watch::WatchTarget {
            stream: self.session.options.stream(bucket),
            subject_prefix: self.session.options.subject(bucket, ""),
            filter,
            delivery,
            events,
            malformed: Mutex::default(),
        };
        let cancel = watches::open(&self.watches, target).ok_or_else(|| {
            let why = "the thread of the NATS session has ended";
            Error::new(Code::Unavailable, why).with_operation("watch")
        })?;
        Ok(Watch::new(receiver, cancel))
    }

    /// Returns the filter for the keys under a prefix, and the subject prefix of a key.
    fn filter(&self, bucket: Bucket, prefix: &str) -> (String, String) {
        let options = &self.session.options;
        let filter = match prefix {
            "" => options.subject(bucket, ">"),
            prefix => options.subject(bucket, &format!("{prefix}.>")),
        };
        (filter, options.subject(bucket, ""))
    }
}

impl Drop for NatsStore {
    fn drop(&mut self) {
        self.session.begin_stop();
        let stopped = cancel::without_cancellation(|| self.stop(Instant::now() + DROP_TIMEOUT));
        if let Err(error) = stopped {
            log::warn!("NATS store dropped before it was stopped: {error}");
        }
    }
}

impl fmt::Debug for NatsStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsStore")
            .field("options", &self.session.options)
            .field("health", &self.health())
            .finish_non_exhaustive()
    }
}

fn check_key(operation: &'static str, key: &str) -> Result<()> {
    match key_fault(key, write::KEY_BYTES_MAX) {
        None => Ok(()),
        Some(fault) => {
            let text = format!("key {:?} {fault}", truncated(key, 60));
            Err(Error::new(Code::InvalidArgument, text).with_operation(operation))
        }
    }
}

fn check_prefix(operation: &'static str, prefix: &str) -> Result<()> {
    if prefix.is_empty() {
        return Ok(());
    }
    check_key(operation, prefix)
}
