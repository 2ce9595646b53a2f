//! The NATS protocol from server to client as a state machine: bytes in, events out, no I/O.
//!
//! No memory is allocated for an announced size: the buffer grows with the received bytes, and every
//! announced size is checked against a limit first.

use std::fmt;
use std::ops::Range;

use super::info::ServerInfo;

/// Maximum length of a control line other than INFO. A subject and a reply subject have at most 4 KiB
/// each on a server with default settings.
const CONTROL_LINE_MAX: usize = 16 * 1024;
/// Maximum length of an INFO line. The URLs of a cluster of a thousand servers fit.
const INFO_LINE_MAX: usize = 64 * 1024;
/// Maximum size of the headers of a message.
const HEADERS_MAX: usize = 64 * 1024;
/// Maximum size of a message, headers included. Replies of the JetStream API may exceed the server's
/// `max_payload`, which can be configured up to this value.
pub const MESSAGE_MAX: usize = 64 * 1024 * 1024;
/// Maximum size of a message before the login, when no message is expected.
const MESSAGE_MAX_BEFORE_LOGIN: usize = 0;
/// Minimum buffer space for one read.
const READ_MIN: usize = 4 * 1024;
/// Capacity of the idle buffer, and under load.
const BUFFER_MIN: usize = 16 * 1024;
const BUFFER_BUSY: usize = 64 * 1024;
/// Maximum length of the text kept from an error line.
const ERROR_TEXT_MAX: usize = 512;

/// An event from the server.
#[derive(Debug)]
pub enum Event<'a> {
    Info(Box<ServerInfo>),
    Ping,
    Pong,
    Ok,
    /// `-ERR`: the text without its quotes, at most 512 characters.
    Error(String),
    Message(MessageRef<'a>),
}

/// A message in the decoder's buffer. All fields are untrusted bytes.
#[derive(Clone, Copy, Debug)]
pub struct MessageRef<'a> {
    pub subscription: u64,
    pub subject: &'a [u8],
    /// Empty without a reply subject.
    pub reply: &'a [u8],
    /// The header block with its version line. Empty without headers.
    pub headers: &'a [u8],
    pub payload: &'a [u8],
}

/// A violation of the NATS protocol or of a limit. The connection is unusable afterwards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProtocolError {
    LineTooLong { limit: usize },
    MessageTooLarge { size: usize, limit: usize },
    HeadersTooLarge { size: usize, limit: usize },
    MalformedInfo(String),
    Malformed { what: &'static str, line: String },
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LineTooLong { limit } => {
                write!(f, "protocol line longer than the limit of {limit} bytes")
            }
            Self::MessageTooLarge { size, limit } => {
                write!(f, "message of {size} bytes exceeds the limit of {limit}")
            }
            Self::HeadersTooLarge { size, limit } => {
                write!(
                    f,
                    "message headers of {size} bytes exceed the limit of {limit}"
                )
            }
            Self::MalformedInfo(why) => write!(f, "malformed INFO: {why}"),
            Self::Malformed { what, line } => write!(f, "{what}: {line:?}"),
        }
    }
}

/// Decodes the bytes of the server into events.
///
/// Read into [`Decoder::space`], report the count to [`Decoder::filled`], then call
/// [`Decoder::next`] until it returns nothing.
pub struct Decoder {
    /// Initialised memory. The unconsumed bytes are `start..end`.
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// Bytes from `start` known to contain no line end.
    scanned: usize,
    body: Option<Body>,
    message_max: usize,
}

/// A message whose control line was read. Ranges count from the decoder's `start`.
struct Body {
    subscription: u64,
    subject: Range<usize>,
    reply: Range<usize>,
    at: usize,
    headers: usize,
    total: usize,
}

/// An event whose bytes are still in the buffer, by absolute position.
enum Found {
    Info(Box<ServerInfo>),
    Ping,
    Pong,
    Ok,
    Error(String),
    Message {
        subscription: u64,
        subject: Range<usize>,
        reply: Range<usize>,
        headers: Range<usize>,
        payload: Range<usize>,
    },
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Decoder {
    /// Creates the decoder of a new connection. It rejects messages until [`Decoder::logged_in`].
    pub fn new() -> Self {
        Self {
            buffer: Vec::new(),
            start: 0,
            end: 0,
            scanned: 0,
            body: None,
            message_max: MESSAGE_MAX_BEFORE_LOGIN,
        }
    }

    /// Accepts messages from now on.
    pub fn logged_in(&mut self) {
        self.message_max = MESSAGE_MAX;
    }

    /// Returns the number of unconsumed bytes.
    pub fn pending(&self) -> usize {
        self.end - self.start
    }

    /// Returns the capacity of the buffer in bytes.
    #[cfg(any(test, fuzzing))]
    pub fn capacity(&self) -> usize {
        self.buffer.len()
    }

    /// Returns the buffer for the next read. Never empty.
    pub fn space(&mut self) -> &mut [u8] {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
            if self.buffer.len() > BUFFER_BUSY {
                // Large messages are rare, so their memory is not kept.
                self.buffer = Vec::new();
            }
        } else if self.buffer.len() - self.end < READ_MIN && self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        if self.buffer.len() - self.end < READ_MIN {
            let size = (self.buffer.len() * 2).max(BUFFER_MIN);
            self.buffer.resize(size, 0);
        }
        &mut self.buffer[self.end..]
    }

    /// Records that `count` bytes were written to the start of [`Decoder::space`].
    pub fn filled(&mut self, count: usize) {
        self.end = (self.end + count).min(self.buffer.len());
        if self.end == self.buffer.len() && self.buffer.len() < BUFFER_BUSY {
            self.buffer.resize(BUFFER_BUSY, 0);
        }
    }

    /// Returns the next event, or `None` if more bytes are needed.
    ///
    /// # Errors
    /// [`ProtocolError`], after which the decoder must not be used again.
    pub fn next(&mut self) -> Result<Option<Event<'_>>, ProtocolError> {
        let Some(found) = self.advance()? else {
            return Ok(None);
        };
        let bytes = &self.buffer;
        Ok(Some(match found {
            Found::Info(info) => Event::Info(info),
            Found::Ping => Event::Ping,
            Found::Pong => Event::Pong,
            Found::Ok => Event::Ok,
            Found::Error(text) => Event::Error(text),
            Found::Message {
                subscription,
                subject,
                reply,
                headers,
                payload,
            } => Event::Message(MessageRef {
                subscription,
                subject: &bytes[subject],
                reply: &bytes[reply],
                headers: &bytes[headers],
                payload: &bytes[payload],
            }),
        }))
    }

    fn advance(&mut self) -> Result<Option<Found>, ProtocolError> {
        loop {
            if let Some(body) = &self.body {
                let needed = body.at + body.total + 2;
                if self.pending() < needed {
                    return Ok(None);
                }
                return self.message(needed).map(Some);
            }
            let window = &self.buffer[self.start..self.end];
            let limit = line_max(window);
            let Some(length) = window[self.scanned..].iter().position(|b| *b == b'\n') else {
                self.scanned = window.len();
                if window.len() > limit {
                    return Err(ProtocolError::LineTooLong { limit });
                }
                return Ok(None);
            };
            let line_end = self.scanned + length;
            if line_end > limit {
                return Err(ProtocolError::LineTooLong { limit });
            }
            self.scanned = 0;
            let line = window[..line_end].strip_suffix(b"\r");
            let line = line.unwrap_or(&window[..line_end]);
            match parse_line(line, line_end + 1, self.message_max)? {
                Line::Complete(found) => {
                    self.start += line_end + 1;
                    return Ok(Some(found));
                }
                Line::Message(body) => self.body = Some(body),
            }
        }
    }

    /// Consumes a message if it has arrived completely.
    fn message(&mut self, needed: usize) -> Result<Found, ProtocolError> {
        let start = self.start;
        let found = self.body.take().map(|body| {
            let absolute = |range: Range<usize>| start + range.start..start + range.end;
            let payload_at = body.at + body.headers;
            Found::Message {
                subscription: body.subscription,
                subject: absolute(body.subject),
                reply: absolute(body.reply),
                headers: absolute(body.at..payload_at),
                payload: absolute(payload_at..body.at + body.total),
            }
        });
        let ends = &self.buffer[start + needed - 2..start + needed] == b"\r\n";
        self.start += needed;
        match found {
            Some(found) if ends => Ok(found),
            _ => Err(malformed("message without its line end", b"")),
        }
    }
}

enum Line {
    Complete(Found),
    Message(Body),
}

fn line_max(window: &[u8]) -> usize {
    let is_info = window.len() >= 4 && window[..4].eq_ignore_ascii_case(b"INFO");
    if is_info {
        INFO_LINE_MAX
    } else {
        CONTROL_LINE_MAX
    }
}

fn malformed(what: &'static str, line: &[u8]) -> ProtocolError {
    let shown = &line[..line.len().min(60)];
    ProtocolError::Malformed {
        what,
        line: String::from_utf8_lossy(shown).into_owned(),
    }
}

/// Reads one line; `body_at` is where the payload of a message begins.
fn parse_line(line: &[u8], body_at: usize, message_max: usize) -> Result<Line, ProtocolError> {
    let is_space = |b: &u8| matches!(b, b' ' | b'\t');
    let end = line.iter().position(is_space).unwrap_or(line.len());
    let (operation, rest) = line.split_at(end);
    let is = |name: &[u8]| operation.eq_ignore_ascii_case(name);
    if is(b"MSG") {
        return parse_message(line, end, false, body_at, message_max);
    }
    if is(b"HMSG") {
        return parse_message(line, end, true, body_at, message_max);
    }
    let found = if is(b"PING") {
        Found::Ping
    } else if is(b"PONG") {
        Found::Pong
    } else if is(b"+OK") {
        Found::Ok
    } else if is(b"-ERR") {
        let text = String::from_utf8_lossy(rest);
        let text = text.trim().trim_matches('\'');
        Found::Error(text.chars().take(ERROR_TEXT_MAX).collect())
    } else if is(b"INFO") {
        let info = serde_json::from_slice(rest);
        let info = info.map_err(|error| ProtocolError::MalformedInfo(error.to_string()))?;
        Found::Info(Box::new(info))
    } else {
        return Err(malformed("not a NATS protocol line", line));
    };
    Ok(Line::Complete(found))
}

/// `MSG <subject> <sid> [reply] <size>`, or `HMSG` with the size of the headers before the size.
fn parse_message(
    line: &[u8],
    arguments_at: usize,
    has_headers: bool,
    body_at: usize,
    message_max: usize,
) -> Result<Line, ProtocolError> {
    let wrong = || malformed("malformed message line", line);
    let mut fields: [Range<usize>; 5] = [const { 0..0 }; 5];
    let mut count = 0;
    let mut at = arguments_at;
    while at < line.len() {
        if matches!(line[at], b' ' | b'\t') {
            at += 1;
            continue;
        }
        let rest = &line[at..];
        let length = rest.iter().position(|b| matches!(b, b' ' | b'\t'));
        let end = at + length.unwrap_or(rest.len());
        *fields.get_mut(count).ok_or_else(wrong)? = at..end;
        count += 1;
        at = end;
    }
    let sizes = if has_headers { 2 } else { 1 };
    // Subject and subscription, perhaps a reply subject, and the sizes.
    let reply = match count.checked_sub(sizes) {
        Some(2) => 0..0,
        Some(3) => fields[2].clone(),
        _ => return Err(wrong()),
    };
    let number = |field: &Range<usize>| parse_number(&line[field.clone()]).ok_or_else(wrong);
    let size = |field: &Range<usize>| Ok(usize::try_from(number(field)?).unwrap_or(usize::MAX));
    let total: usize = size(&fields[count - 1])?;
    let headers = if has_headers {
        size(&fields[count - 2])?
    } else {
        0
    };
    if total > message_max {
        let (size, limit) = (total, message_max);
        return Err(ProtocolError::MessageTooLarge { size, limit });
    }
    if headers > HEADERS_MAX {
        let (size, limit) = (headers, HEADERS_MAX);
        return Err(ProtocolError::HeadersTooLarge { size, limit });
    }
    if headers > total {
        return Err(wrong());
    }
    Ok(Line::Message(Body {
        subscription: number(&fields[1])?,
        subject: fields[0].clone(),
        reply,
        at: body_at,
        headers,
        total,
    }))
}

fn parse_number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |number, digit| {
        let digit = digit.is_ascii_digit().then(|| digit - b'0')?;
        number.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Everything that the bytes say when they arrive in pieces of these sizes, and the most
    /// memory that was held.
    fn decode(bytes: &[u8], pieces: &[usize]) -> (Vec<String>, usize) {
        let mut decoder = Decoder::new();
        decoder.logged_in();
        let (mut seen, mut held) = (Vec::new(), 0);
        let mut pieces = pieces.iter().copied().filter(|size| *size > 0).cycle();
        let mut at = 0;
        while at < bytes.len() {
            let size = pieces.next().unwrap_or(usize::MAX);
            let space = decoder.space();
            let size = size.min(bytes.len() - at).min(space.len());
            space[..size].copy_from_slice(&bytes[at..at + size]);
            decoder.filled(size);
            held = held.max(decoder.capacity());
            at += size;
            loop {
                match decoder.next() {
                    Ok(Some(event)) => seen.push(format!("{event:?}")),
                    Ok(None) => break,
                    Err(error) => {
                        seen.push(format!("{error:?}"));
                        return (seen, held);
                    }
                }
            }
        }
        (seen, held)
    }

    fn one(bytes: &[u8]) -> String {
        let (mut seen, _) = decode(bytes, &[]);
        assert_eq!(seen.len(), 1, "{seen:?}");
        seen.remove(0)
    }

    #[test]
    fn messages_with_and_without_reply_and_headers_are_read() {
        let shown = one(b"MSG a.b 7 2\r\nhi\r\n");
        assert_eq!(
            shown,
            format!(
                "{:?}",
                Event::Message(MessageRef {
                    subscription: 7,
                    subject: b"a.b",
                    reply: b"",
                    headers: b"",
                    payload: b"hi"
                })
            )
        );
        let shown = one(b"hmsg a.b 7 r.1  12 14\r\nNATS/1.0\r\n\r\nhi\r\n");
        assert_eq!(
            shown,
            format!(
                "{:?}",
                Event::Message(MessageRef {
                    subscription: 7,
                    subject: b"a.b",
                    reply: b"r.1",
                    headers: b"NATS/1.0\r\n\r\n",
                    payload: b"hi"
                })
            )
        );
        assert_eq!(
            decode(b"PING\r\nPONG\r\n+OK\r\n", &[]).0,
            ["Ping", "Pong", "Ok"]
        );
        assert!(one(b"MSG a\xff\xfeb 1 0\r\n\r\n").contains("255, 254"));
    }

    #[test]
    fn error_line_keeps_the_servers_reason() {
        assert_eq!(
            one(b"-ERR 'maximum connections exceeded'\r\n"),
            "Error(\"maximum connections exceeded\")"
        );
        let long = [b"-ERR '".as_slice(), &[b'x'; 9_000], b"'\r\n"].concat();
        assert!(one(&long).len() < 600);
    }

    #[test]
    fn announced_sizes_are_refused_before_memory_is_taken() {
        for line in [
            &b"MSG a 1 4294967295\r\nxxxx"[..],
            b"MSG a 1 67108865\r\nx",
            b"HMSG a 1 65537 70000\r\nx",
            b"MSG a 1 18446744073709551615\r\n",
        ] {
            let (seen, held) = decode(line, &[]);
            assert!(seen[0].contains("TooLarge"), "{seen:?}");
            assert!(held <= BUFFER_MIN, "{held}");
        }
        let mut decoder = Decoder::new();
        let line = b"MSG a 1 1\r\n";
        decoder.space()[..line.len()].copy_from_slice(line);
        decoder.filled(line.len());
        assert!(matches!(
            decoder.next(),
            Err(ProtocolError::MessageTooLarge { .. })
        ));
    }

    #[test]
    fn endless_line_ends_with_an_error_and_little_memory() {
        let endless_info = [b"INFO {".as_slice(), &vec![b'A'; 10 << 20]].concat();
        let endless_line = vec![b'B'; 10 << 20];
        for bytes in [endless_info, endless_line] {
            let (seen, held) = decode(&bytes, &[65_536]);
            assert_eq!(seen.len(), 1);
            assert!(seen[0].contains("LineTooLong"), "{seen:?}");
            assert!(held <= 4 * INFO_LINE_MAX, "{held}");
        }
    }

    #[test]
    fn large_message_costs_twice_its_size_and_is_given_back() {
        let size = 3_000_000;
        let mut bytes = format!("MSG a 1 {size}\r\n").into_bytes();
        bytes.resize(bytes.len() + size, b'x');
        bytes.extend(b"\r\nPING\r\n");
        let (seen, held) = decode(&bytes, &[1_000]);
        assert_eq!(seen.len(), 2);
        assert!(held <= 2 * bytes.len() + BUFFER_BUSY, "{held}");
        let mut decoder = Decoder::new();
        decoder.buffer = vec![0; 1 << 20];
        decoder.space();
        assert_eq!(decoder.capacity(), BUFFER_MIN);
    }

    #[test]
    fn what_is_not_the_protocol_is_an_error() {
        for bytes in [
            &b"HTTP/1.1 400 Bad Request\r\n"[..],
            b"\r\n",
            b"MSG\r\n",
            b"MSG a\r\n",
            b"MSG a 1\r\n",
            b"MSG a x 1\r\n",
            b"MSG a 1 -1\r\n",
            b"MSG a 1 r s 1\r\n",
            b"HMSG a 1 9 5\r\nxxxxx\r\n",
            b"MSG a 1 2\r\nhixx",
            b"INFO {\r\n",
            b"INFO 5\r\n",
            b"\x16\x03\x01\n",
        ] {
            let shown = one(bytes);
            assert!(shown.contains("Malformed"), "{shown}");
        }
    }

    /// Bytes that are the protocol for the most part.
    fn traffic() -> impl Strategy<Value = Vec<u8>> {
        let message = (0..400_usize, 0..40_usize, any::<bool>()).prop_map(|(size, head, reply)| {
            let reply = if reply { "r.5 " } else { "" };
            let mut bytes = match head {
                0 => format!("MSG s.1 3 {reply}{size}\r\n").into_bytes(),
                _ => format!("HMSG s.1 3 {reply}{head} {}\r\n", head + size).into_bytes(),
            };
            bytes.resize(bytes.len() + head + size, b'\n');
            bytes.extend(b"\r\n");
            bytes
        });
        let part = prop_oneof![
            8 => message,
            1 => Just(b"PING\r\n".to_vec()),
            1 => Just(b"INFO {\"max_payload\":5}\r\n".to_vec()),
            1 => Just(b"-ERR 'x'\r\n".to_vec()),
            1 => prop::collection::vec(any::<u8>(), 0..20),
        ];
        prop::collection::vec(part, 0..30).prop_map(|parts| parts.concat())
    }

    proptest! {
        #[test]
        fn every_split_gives_the_same_events(
            bytes in traffic(), pieces in prop::collection::vec(1..50_usize, 1..20)
        ) {
            let (whole, _) = decode(&bytes, &[]);
            prop_assert_eq!(&whole, &decode(&bytes, &pieces).0);
            prop_assert_eq!(&whole, &decode(&bytes, &[1]).0);
        }

        #[test]
        fn arbitrary_bytes_never_panic_and_never_take_more_memory_than_arrived(
            bytes in prop::collection::vec(any::<u8>(), 0..4_000),
            pieces in prop::collection::vec(1..999_usize, 1..5)
        ) {
            let (_, held) = decode(&bytes, &pieces);
            prop_assert!(held <= BUFFER_MIN);
        }
    }
}
