//! Reads and lists keys, always from the stream leader and as JSON.
//!
//! A direct get may be answered by a replica that has not seen the last acknowledged write.
//! `STREAM.MSG.GET` is answered by the leader.

use std::time::Instant;

use super::client::headers::Headers;
use super::failure::RequestFailure;
use super::jetstream::{StoredMessage, Stream, read_message};
use crate::store::{Entry, Listing};

/// Maximum number of requests in flight. The server queues 10 000 for all its clients.
const WINDOW: usize = 256;

/// A listing, and the incarnation of the bucket that it belongs to.
pub(super) struct Snapshot {
    pub(super) listing: Listing,
    pub(super) created: String,
}

/// Reads the last state of one key.
pub(super) fn read(
    stream: &Stream,
    subject: &str,
    key: &str,
    deadline: Instant,
) -> Result<Option<Entry>, RequestFailure> {
    let message = stream.last_message(subject, deadline)?;
    Ok(message.map(|message| entry(stream, key.to_owned(), message)))
}

/// Lists all keys that match `filter`. `keys_at` is the length of the subject prefix of a key.
pub(super) fn list(
    stream: &Stream,
    filter: &str,
    keys_at: usize,
    deadline: Instant,
) -> Result<Snapshot, RequestFailure> {
    let subjects = stream.subjects(filter, deadline)?;
    let mut names = subjects.names;
    names.retain(|name| name.is_char_boundary(keys_at.min(name.len())) && name.len() > keys_at);
    let mut entries = Vec::with_capacity(names.len());
    let mut exchange = stream.link.exchange(names.len(), deadline);
    let mut asked = 0;
    for answered in 0..names.len() {
        while asked < names.len().min(answered + WINDOW) {
            let (api, body) = stream.last_message_request(&names[asked]);
            exchange.send(&api, &Headers::default(), &body, true)?;
            asked += 1;
        }
        let (index, reply) = exchange.receive()?;
        // A key without a message expired or was purged after its subject was listed.
        if let Some(message) = read_message(reply)? {
            entries.push(entry(stream, names[index][keys_at..].to_owned(), message));
        }
    }
    let listing = Listing {
        entries,
        last_sequence: subjects.info.state.last_seq,
    };
    Ok(Snapshot {
        listing,
        created: subjects.info.created,
    })
}

fn entry(stream: &Stream, key: String, message: StoredMessage) -> Entry {
    Entry {
        key,
        value: message.data,
        revision: message.sequence,
        operation: message.operation,
        age: message.time.and_then(|time| stream.link.age_of(time)),
    }
}
