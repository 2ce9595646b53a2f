//! Message headers: encoding, and decoding of untrusted bytes.

use std::fmt::Display;
use std::io::Write as _;

const VERSION: &[u8] = b"NATS/1.0";

/// Headers of an outgoing message, in the order added.
#[derive(Clone, Debug, Default)]
pub struct Headers {
    /// The block without its final line end. Empty without headers.
    block: Vec<u8>,
    is_malformed: bool,
}

impl Headers {
    /// Adds a header. A name or value with a line end makes the message unsendable.
    pub fn add(&mut self, name: &str, value: impl Display) {
        if self.block.is_empty() {
            self.block.extend_from_slice(VERSION);
            self.block.extend_from_slice(b"\r\n");
        }
        let from = self.block.len();
        // Writing to a Vec cannot fail.
        let _ = write!(self.block, "{name}: {value}");
        self.is_malformed |= self.block[from..]
            .iter()
            .any(|b| matches!(b, b'\r' | b'\n'));
        self.block.extend_from_slice(b"\r\n");
    }

    /// Removes all headers and keeps their memory.
    pub fn clear(&mut self) {
        self.block.clear();
        self.is_malformed = false;
    }

    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.block.is_empty()
    }

    pub fn is_malformed(&self) -> bool {
        self.is_malformed
    }

    /// The block without the empty line that ends it.
    pub fn as_bytes(&self) -> &[u8] {
        &self.block
    }
}

/// The header block of a message that arrived. Malformed lines are ignored.
#[derive(Clone, Copy)]
pub struct HeaderBlock<'a>(pub &'a [u8]);

impl<'a> HeaderBlock<'a> {
    /// The value of the first header of this name; nothing when it is not UTF-8.
    pub fn get(self, name: &str) -> Option<&'a str> {
        let value = self.lines().find_map(|line| {
            let colon = line.iter().position(|b| *b == b':')?;
            (line[..colon].trim_ascii() == name.as_bytes()).then(|| &line[colon + 1..])
        })?;
        std::str::from_utf8(value.trim_ascii()).ok()
    }

    /// The status in the version line, `NATS/1.0 503 No Responders`: number and text.
    pub fn status(self) -> Option<(u16, &'a str)> {
        let line = self.lines().next()?.strip_prefix(VERSION)?;
        let line = std::str::from_utf8(line).ok()?.trim();
        let (code, text) = line.split_once(' ').unwrap_or((line, ""));
        Some((code.parse().ok()?, text.trim()))
    }

    fn lines(self) -> impl Iterator<Item = &'a [u8]> {
        self.0.split(|b| *b == b'\n').map(<[u8]>::trim_ascii)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_written_in_order_and_a_line_end_is_caught() {
        let mut headers = Headers::default();
        headers.add("A", 1);
        headers.add("B", "x y");
        assert_eq!(headers.as_bytes(), b"NATS/1.0\r\nA: 1\r\nB: x y\r\n");
        assert!(!headers.is_malformed());
        headers.add("C", "x\r\nInjected: 1");
        assert!(headers.is_malformed());
        headers.clear();
        assert!(headers.is_empty() && !headers.is_malformed());
    }

    #[test]
    fn malformed_headers_hide_no_well_formed_one() {
        let block = HeaderBlock(
            b"NATS/1.0\r\nno colon\r\n\xff\xfe: x\r\nA:  1 \r\nA: 2\r\nB: \xff\r\n\r\n",
        );
        assert_eq!(block.get("A"), Some("1"));
        assert_eq!(
            (block.get("B"), block.get("C"), block.status()),
            (None, None, None)
        );
        assert_eq!(HeaderBlock(b"").get("A"), None);
    }

    #[test]
    fn status_line_is_distinguished_from_a_plain_version() {
        for (block, expected) in [
            (&b"NATS/1.0 503\r\n\r\n"[..], Some((503, ""))),
            (
                b"NATS/1.0 100 Idle Heartbeat\r\nA: 1\r\n\r\n",
                Some((100, "Idle Heartbeat")),
            ),
            (b"NATS/1.0\r\n\r\n", None),
            (b"NATS/1.0 99999\r\n\r\n", None),
            (b"HTTP/1.1 200\r\n", None),
        ] {
            assert_eq!(HeaderBlock(block).status(), expected);
        }
    }
}
