//! Entry points for fuzzing: everything that reads bytes which a peer may have written. Compiled with
//! `--cfg fuzzing` only; the targets are in `fuzz/`.

use super::client::address::Address;
use super::client::auth::is_user_seed;
use super::client::encode::{self, Publish};
use super::client::headers::{HeaderBlock, Headers};
use super::client::proto::{Decoder, Event};
use super::client::resolve::read_answer;
use super::jetstream::{PublishAck, StreamInfo, read_message, read_reply};
use super::link::{AckSubject, Reply};

/// Memory of an idle decoder. A busy one has at most four times what has arrived in addition.
const IDLE_MAX: usize = 64 * 1024;

/// The server's bytes: any split gives the same events, and memory stays below a multiple of them.
pub fn protocol(data: &[u8]) {
    let Some((first, bytes)) = data.split_first() else {
        return;
    };
    let whole = decoded(bytes, usize::MAX);
    let pieces = decoded(bytes, usize::from(*first).max(1));
    assert_eq!(whole, pieces);
}

fn decoded(bytes: &[u8], piece: usize) -> Vec<String> {
    let mut decoder = Decoder::new();
    decoder.logged_in();
    let mut seen = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let space = decoder.space();
        let count = space.len().min(piece).min(rest.len());
        space[..count].copy_from_slice(&rest[..count]);
        decoder.filled(count);
        rest = &rest[count..];
        loop {
            match decoder.next() {
                Ok(None) => break,
                Ok(Some(event)) => seen.push(shown(&event)),
                Err(error) => {
                    seen.push(format!("{error:?}"));
                    return seen;
                }
            }
        }
        assert!(decoder.capacity() <= IDLE_MAX + 4 * bytes.len());
    }
    seen
}

fn shown(event: &Event<'_>) -> String {
    if let Event::Message(message) = event {
        let headers = HeaderBlock(message.headers);
        let _ = (headers.status(), headers.get("Nats-Sequence"));
    }
    format!("{event:?}")
}

/// A client's message: one command with the sizes that it states, or refused.
pub fn commands(data: &[u8]) {
    let mut parts = data.split(|byte| *byte == 0xff);
    let mut text = || String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
    let (subject, reply, name, value) = (text(), text(), text(), text());
    let payload = parts.next().unwrap_or_default();
    let mut headers = Headers::default();
    if !name.is_empty() {
        headers.add(&name, &value);
    }
    let mut out = Vec::new();
    let message = Publish {
        subject: &subject,
        reply: (!reply.is_empty()).then_some(&*reply),
        headers: &headers,
        payload,
    };
    if encode::publish(&mut out, &message).is_err() {
        assert!(out.is_empty());
        return;
    }
    let end = out.iter().position(|byte| *byte == b'\n').unwrap_or(0);
    let line = String::from_utf8_lossy(&out[..end]);
    let words: Vec<&str> = line.trim_end().split(' ').collect();
    assert_eq!(words[1], subject);
    let size = |word: &str| word.parse::<usize>().unwrap_or(usize::MAX);
    let total = size(words[words.len() - 1]);
    assert_eq!(out.len(), end + 1 + total + 2);
    assert!(out.ends_with(b"\r\n"));
    if words[0] == "HPUB" {
        let head = size(words[words.len() - 2]);
        let block = &out[end + 1..end + 1 + head];
        // One header: its version line, itself, an empty line.
        assert_eq!(block.iter().filter(|byte| **byte == b'\n').count(), 3);
    }
}

/// Everything else that is read from a peer, an operator or a name server.
pub fn text(data: &[u8]) {
    let block = HeaderBlock(data);
    let _ = (block.status(), block.get("KV-Operation"));
    let _ = read_message(Reply::Data(data.to_vec()));
    let _ = read_reply::<PublishAck>(Reply::Data(data.to_vec()));
    if let Ok(info) = read_reply::<StreamInfo>(Reply::Data(data.to_vec())) {
        let _ = (
            info.level(),
            info.server_version(),
            info.duration("max_age"),
        );
    }
    for kind in [1, 28] {
        let _ = read_answer(data, "a.b", kind, 0x1234);
        // The question is echoed, so that the records are reached.
        let mut answer = vec![0x12, 0x34, 0x80, 0, 0, 1, 0xff, 0xff, 0, 0, 0, 0];
        answer.extend(b"\x01a\x01b\0\0");
        answer.extend([kind as u8, 0, 1]);
        answer.extend(data);
        let _ = read_answer(&answer, "a.b", kind, 0x1234);
    }
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let _ = (AckSubject::parse(text), is_user_seed(text));
    if let Some(address) = Address::parse(text) {
        let again = Address::parse(&address.to_string());
        assert!(
            again.is_some_and(|again| address.is_same_place(&again)),
            "{address}"
        );
        let _ = address.sibling(text);
    }
}
