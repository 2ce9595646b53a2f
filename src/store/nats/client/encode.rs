//! The NATS protocol from client to server: commands to bytes.

use super::headers::Headers;

/// Maximum length of a subject. Two of them and the rest of a line fit into the 4 096 bytes that a
/// server accepts by default.
const SUBJECT_MAX: usize = 1_536;

/// A message to publish.
#[derive(Clone, Copy, Debug)]
pub struct Publish<'a> {
    pub subject: &'a str,
    /// The reply subject.
    pub reply: Option<&'a str>,
    pub headers: &'a Headers,
    pub payload: &'a [u8],
}

/// Returns the size of a message in bytes, without its control line.
pub fn size(message: &Publish<'_>) -> usize {
    message.headers.as_bytes().len() + 2 + message.payload.len()
}

/// Appends a message. Nothing is appended on failure.
///
/// # Errors
/// Why the message cannot be sent. The server would read it as other commands.
pub fn publish(out: &mut Vec<u8>, message: &Publish<'_>) -> Result<(), &'static str> {
    check_subject(message.subject)?;
    if let Some(reply) = message.reply {
        check_subject(reply)?;
    }
    if message.headers.is_malformed() {
        return Err("a header contains a line end");
    }
    let headers = message.headers.as_bytes();
    out.extend_from_slice(if headers.is_empty() {
        b"PUB "
    } else {
        b"HPUB "
    });
    out.extend_from_slice(message.subject.as_bytes());
    out.push(b' ');
    if let Some(reply) = message.reply {
        out.extend_from_slice(reply.as_bytes());
        out.push(b' ');
    }
    if headers.is_empty() {
        push_number(out, message.payload.len() as u64);
    } else {
        let headers_size = headers.len() + 2;
        push_number(out, headers_size as u64);
        out.push(b' ');
        push_number(out, (headers_size + message.payload.len()) as u64);
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(headers);
    }
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(message.payload);
    out.extend_from_slice(b"\r\n");
    Ok(())
}

/// Appends a subscription.
///
/// # Errors
/// Why the subject is invalid.
pub fn subscribe(out: &mut Vec<u8>, subject: &str, id: u64) -> Result<(), &'static str> {
    check_subject(subject)?;
    out.extend_from_slice(b"SUB ");
    out.extend_from_slice(subject.as_bytes());
    out.push(b' ');
    push_number(out, id);
    out.extend_from_slice(b"\r\n");
    Ok(())
}

pub fn unsubscribe(out: &mut Vec<u8>, id: u64) {
    out.extend_from_slice(b"UNSUB ");
    push_number(out, id);
    out.extend_from_slice(b"\r\n");
}

pub fn ping(out: &mut Vec<u8>) {
    out.extend_from_slice(b"PING\r\n");
}

pub fn pong(out: &mut Vec<u8>) {
    out.extend_from_slice(b"PONG\r\n");
}

fn check_subject(subject: &str) -> Result<(), &'static str> {
    if subject.is_empty() {
        return Err("the subject is empty");
    }
    if subject.len() > SUBJECT_MAX {
        return Err("the subject is too long");
    }
    if subject.bytes().any(|b| b <= b' ' || b == 0x7f) {
        return Err("the subject contains a space or a control character");
    }
    Ok(())
}

fn push_number(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0_u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + u8::try_from(number % 10).unwrap_or(0);
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(subject: &str, reply: Option<&str>, headers: &Headers, payload: &[u8]) -> String {
        let mut out = Vec::new();
        let message = Publish {
            subject,
            reply,
            headers,
            payload,
        };
        publish(&mut out, &message).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn messages_are_encoded_with_and_without_headers_and_reply() {
        let mut headers = Headers::default();
        assert_eq!(encoded("a", None, &headers, b"hi"), "PUB a 2\r\nhi\r\n");
        assert_eq!(encoded("a", Some("r"), &headers, b""), "PUB a r 0\r\n\r\n");
        headers.add("K", "v");
        assert_eq!(
            encoded("a", Some("r"), &headers, b"hi"),
            "HPUB a r 18 20\r\nNATS/1.0\r\nK: v\r\n\r\nhi\r\n"
        );
        let mut out = Vec::new();
        subscribe(&mut out, "a.*", u64::MAX).unwrap();
        unsubscribe(&mut out, 0);
        assert_eq!(out, b"SUB a.* 18446744073709551615\r\nUNSUB 0\r\n");
    }

    #[test]
    fn what_could_inject_a_command_is_refused_and_nothing_is_written() {
        let mut out = Vec::new();
        let long = "x".repeat(SUBJECT_MAX + 1);
        for subject in ["", "a b", "a\r\nPUB x 0\r\n\r\n", "a\tb", "a\0", &long] {
            let headers = &Headers::default();
            for (subject, reply) in [(subject, None), ("ok", Some(subject))] {
                let message = Publish {
                    subject,
                    reply,
                    headers,
                    payload: b"",
                };
                assert!(publish(&mut out, &message).is_err(), "{subject:?}");
            }
            assert!(subscribe(&mut out, subject, 1).is_err());
        }
        let mut headers = Headers::default();
        headers.add("K", "v\r\nX: y");
        let message = Publish {
            subject: "a",
            reply: None,
            headers: &headers,
            payload: b"",
        };
        assert!(publish(&mut out, &message).is_err());
        assert!(out.is_empty());
    }
}
