//! A minimal NATS client, for messages that no client library sends.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// A connection that sends raw bytes.
pub struct RawNats {
    stream: TcpStream,
    reader: BufReader<TcpStream>,
    requests: u64,
}

impl RawNats {
    pub fn connect(port: u16) -> Self {
        Self::open(port, "")
    }

    pub fn connect_as(port: u16, user: &str, password: &str) -> Self {
        Self::open(
            port,
            &format!(",\"user\":\"{user}\",\"pass\":\"{password}\""),
        )
    }

    fn open(port: u16, login: &str) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).expect("a server");
        stream.set_nodelay(true).expect("a socket option");
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .expect("a socket option");
        let mut reader = BufReader::new(stream.try_clone().expect("a handle"));
        let mut greeting = String::new();
        reader.read_line(&mut greeting).expect("a greeting");
        let mut raw = Self {
            stream,
            reader,
            requests: 0,
        };
        let options = "\"verbose\":false,\"headers\":true,\"no_responders\":true";
        raw.send(format!("CONNECT {{{options}{login}}}\r\n").as_bytes());
        raw.send(b"SUB RAW.reply.> 1\r\n");
        raw.flush();
        raw
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the server reads");
    }

    /// Waits until the server has processed everything sent.
    pub fn flush(&mut self) {
        self.send(b"PING\r\n");
        loop {
            let mut line = String::new();
            self.reader
                .read_line(&mut line)
                .expect("the server answers");
            match line.trim_end() {
                "PONG" => return,
                "PING" => self.send(b"PONG\r\n"),
                other => panic!("the server says {other:?}"),
            }
        }
    }

    /// Publishes with raw headers, and waits for the acknowledgement.
    pub fn store(&mut self, subject: &[u8], headers: &[u8], payload: &[u8]) -> serde_json::Value {
        self.exchange(subject, headers, payload)
    }

    /// A request to the JetStream API.
    pub fn api(&mut self, what: &str, body: &str) -> serde_json::Value {
        let subject = format!("$JS.API.{what}");
        self.exchange(subject.as_bytes(), b"", body.as_bytes())
    }

    fn exchange(&mut self, subject: &[u8], headers: &[u8], payload: &[u8]) -> serde_json::Value {
        let mut bytes = Vec::new();
        let reply = self.request(&mut bytes, subject, headers, payload);
        self.send(&bytes);
        loop {
            let (got, payload) = self.message();
            if got == reply {
                return serde_json::from_slice(&payload).unwrap_or_default();
            }
        }
    }

    /// Appends a publication with a reply subject, and returns that subject.
    pub fn request(
        &mut self,
        bytes: &mut Vec<u8>,
        subject: &[u8],
        headers: &[u8],
        payload: &[u8],
    ) -> String {
        self.requests += 1;
        let reply = format!("RAW.reply.{}", self.requests);
        publication(bytes, subject, &reply, headers, payload);
        reply
    }

    /// Returns the next message: its subject and payload.
    pub fn message(&mut self) -> (String, Vec<u8>) {
        loop {
            let mut line = String::new();
            self.reader
                .read_line(&mut line)
                .expect("the server answers");
            let words: Vec<&str> = line.split_ascii_whitespace().collect();
            let (head, total) = match words.as_slice() {
                ["MSG", .., total] => (0, total.parse::<usize>()),
                ["HMSG", .., head, total] => (head.parse().expect("a size"), total.parse()),
                ["PING"] => {
                    self.send(b"PONG\r\n");
                    continue;
                }
                other => panic!("the server says {other:?}"),
            };
            let mut payload = vec![0; total.expect("a size") + 2];
            self.reader.read_exact(&mut payload).expect("a payload");
            payload.truncate(payload.len() - 2);
            return (words[1].to_owned(), payload.split_off(head));
        }
    }
}

/// Appends a publication. An empty `reply` requests no answer.
pub fn publication(
    bytes: &mut Vec<u8>,
    subject: &[u8],
    reply: &str,
    headers: &[u8],
    payload: &[u8],
) {
    let verb: &[u8] = if headers.is_empty() {
        b"PUB "
    } else {
        b"HPUB "
    };
    bytes.extend_from_slice(verb);
    bytes.extend_from_slice(subject);
    bytes.extend_from_slice(format!(" {reply} ").as_bytes());
    if !headers.is_empty() {
        bytes.extend_from_slice(format!("{} ", headers.len()).as_bytes());
    }
    bytes.extend_from_slice(format!("{}\r\n", headers.len() + payload.len()).as_bytes());
    bytes.extend_from_slice(headers);
    bytes.extend_from_slice(payload);
    bytes.extend_from_slice(b"\r\n");
}
