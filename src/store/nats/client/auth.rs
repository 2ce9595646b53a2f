//! The credentials of a login, read for each connection.

use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use data_encoding::BASE32_NOPAD as BASE32;
use ed25519_dalek::{Signer, SigningKey};
use serde::Serialize;
use zeroize::{Zeroize, Zeroizing};

use super::address::UrlLogin;
use super::info::ServerInfo;

/// A text that is overwritten when it is dropped.
pub type Secret = Zeroizing<String>;

/// Maximum size of a credentials file in bytes.
const CREDENTIALS_MAX: u64 = 64 * 1024;
/// Size of a seed in bytes: two of prefix, 32 of key, two of check sum.
const SEED_BYTES: usize = 36;
const PREFIX_SEED: u8 = 18 << 3;
const PREFIX_USER: u8 = 20 << 3;

/// What a credentials callback supplies for one login.
#[derive(Clone, Eq, PartialEq)]
pub enum NatsCredentials {
    /// A token.
    Token(String),
    /// A user JWT, and the signature of the server's nonce by the user's key.
    Jwt {
        /// The JWT in its text form.
        jwt: String,
        /// The Ed25519 signature, 64 bytes.
        signature: Vec<u8>,
    },
}

impl fmt::Debug for NatsCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Token(_) => "Token(***)",
            Self::Jwt { .. } => "Jwt(***)",
        })
    }
}

impl Drop for NatsCredentials {
    fn drop(&mut self) {
        match self {
            Self::Token(token) => token.zeroize(),
            Self::Jwt { jwt, .. } => jwt.zeroize(),
        }
    }
}

/// Supplies credentials for the nonce of a server, or the reason why there are none.
pub type CredentialsCallback = Arc<dyn Fn(&[u8]) -> Result<NatsCredentials, String> + Send + Sync>;

/// How the client authenticates.
#[derive(Clone)]
pub enum Auth {
    Anonymous,
    UserPassword(String, Secret),
    Token(Secret),
    Credentials(PathBuf),
    Nkey(Secret),
    Callback(CredentialsCallback),
}

impl Auth {
    /// Returns the name of the method, for display.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Anonymous => "anonymous",
            Self::UserPassword(..) => "user and password",
            Self::Token(_) => "token",
            Self::Credentials(_) => "credentials file",
            Self::Nkey(_) => "nkey",
            Self::Callback(_) => "callback",
        }
    }
}

impl From<UrlLogin> for Auth {
    fn from(login: UrlLogin) -> Self {
        match login {
            UrlLogin::Token(token) => Self::Token(token),
            UrlLogin::UserPassword(user, password) => Self::UserPassword(user, password),
        }
    }
}

/// The fields of CONNECT.
#[derive(Serialize)]
struct Connect<'a> {
    verbose: bool,
    pedantic: bool,
    tls_required: bool,
    name: &'a str,
    lang: &'static str,
    version: &'static str,
    protocol: u8,
    headers: bool,
    no_responders: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pass: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    auth_token: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    jwt: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nkey: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sig: Option<&'a str>,
}

/// Returns the CONNECT line for a server with this greeting.
///
/// # Errors
/// Why there are no credentials. The text contains no secret. Blocks until the credentials file is
/// read or the callback returns.
pub fn connect_line(
    auth: &Auth,
    name: &str,
    is_secure: bool,
    info: &ServerInfo,
) -> Result<Zeroizing<Vec<u8>>, String> {
    let mut connect = Connect {
        verbose: false,
        pedantic: false,
        tls_required: is_secure,
        name,
        lang: "rust-divvy",
        version: env!("CARGO_PKG_VERSION"),
        protocol: 1,
        headers: true,
        no_responders: true,
        user: None,
        pass: None,
        auth_token: None,
        jwt: None,
        nkey: None,
        sig: None,
    };
    let nonce = info.nonce.as_deref();
    let needed =
        || nonce.ok_or("the server sent no nonce to sign: it does not accept NKeys or JWTs");
    let (key, signature, jwt, supplied);
    match auth {
        Auth::Anonymous => {}
        Auth::UserPassword(user, password) => {
            connect.user = Some(user.as_str());
            connect.pass = Some(password.as_str());
        }
        Auth::Token(token) => connect.auth_token = Some(token),
        Auth::Nkey(seed) => {
            let pair = KeyPair::from_seed(seed)?;
            (key, signature) = (pair.public_key(), pair.sign(needed()?));
            connect.nkey = Some(key.as_str());
            connect.sig = Some(signature.as_str());
        }
        Auth::Credentials(path) => {
            let seed;
            (jwt, seed) = read_credentials(path)?;
            let pair = KeyPair::from_seed(&seed)
                .map_err(|why| format!("credentials file {}: {why}", path.display()))?;
            signature = pair.sign(needed()?);
            connect.jwt = Some(jwt.as_str());
            connect.sig = Some(signature.as_str());
        }
        Auth::Callback(callback) => {
            let nonce = nonce.unwrap_or_default().as_bytes();
            supplied = catch_unwind(AssertUnwindSafe(|| callback(nonce)))
                .map_err(|_| "the credentials callback panicked".to_owned())?
                .map_err(|why| format!("the credentials callback failed: {why}"))?;
            match &supplied {
                NatsCredentials::Token(token) => connect.auth_token = Some(token),
                NatsCredentials::Jwt {
                    jwt,
                    signature: raw,
                } => {
                    signature = BASE64URL.encode(raw);
                    connect.jwt = Some(jwt.as_str());
                    connect.sig = Some(signature.as_str());
                }
            }
        }
    }
    // Reserve room for the largest credentials: growing would leave copies in memory.
    let mut line = Zeroizing::new(Vec::with_capacity(2 * 64 * 1024));
    line.extend_from_slice(b"CONNECT ");
    serde_json::to_writer(&mut *line, &connect).map_err(|error| error.to_string())?;
    line.extend_from_slice(b"\r\n");
    Ok(line)
}

/// Returns whether a text is the seed of a user NKey.
pub fn is_user_seed(seed: &str) -> bool {
    KeyPair::from_seed(seed).is_ok()
}

/// A user NKey. The key is overwritten when it is dropped.
struct KeyPair(SigningKey);

impl KeyPair {
    fn from_seed(seed: &str) -> Result<Self, &'static str> {
        let wrong = "is not a valid NKey seed (value not shown)";
        let mut bytes = Zeroizing::new([0_u8; SEED_BYTES]);
        let seed = seed.trim().as_bytes();
        if BASE32.decode_len(seed.len()) != Ok(SEED_BYTES) {
            return Err(wrong);
        }
        BASE32.decode_mut(seed, &mut *bytes).map_err(|_| wrong)?;
        let (content, sum) = bytes.split_at(SEED_BYTES - 2);
        if sum != crc16(content).to_le_bytes() || content[0] & 0xf8 != PREFIX_SEED {
            return Err(wrong);
        }
        if (content[0] & 0x07) << 5 | content[1] >> 3 != PREFIX_USER {
            return Err("is not the NKey seed of a user (value not shown)");
        }
        let mut secret = Zeroizing::new([0_u8; 32]);
        secret.copy_from_slice(&content[2..]);
        Ok(Self(SigningKey::from_bytes(&secret)))
    }

    fn public_key(&self) -> String {
        let mut bytes = vec![PREFIX_USER];
        bytes.extend_from_slice(self.0.verifying_key().as_bytes());
        let sum = crc16(&bytes);
        bytes.extend_from_slice(&sum.to_le_bytes());
        BASE32.encode(&bytes)
    }

    fn sign(&self, nonce: &str) -> String {
        BASE64URL.encode(self.0.sign(nonce.as_bytes()).to_bytes())
    }
}

/// CRC-16/XMODEM.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |sum, byte| {
        (0..8).fold(sum ^ u16::from(*byte) << 8, |sum, _| {
            let shifted = sum << 1;
            if sum & 0x8000 == 0 {
                shifted
            } else {
                shifted ^ 0x1021
            }
        })
    })
}

/// Returns the JWT and the seed in a `.creds` file.
fn read_credentials(path: &Path) -> Result<(Secret, Secret), String> {
    let failed = |why: String| format!("credentials file {}: {why}", path.display());
    let mut text = Zeroizing::new(String::with_capacity(4 * 1024));
    File::open(path)
        .and_then(|file| file.take(CREDENTIALS_MAX + 1).read_to_string(&mut text))
        .map_err(|error| failed(format!("cannot be read: {error}")))?;
    if text.len() as u64 > CREDENTIALS_MAX {
        return Err(failed(format!("larger than {CREDENTIALS_MAX} bytes")));
    }
    let jwt = section(&text, "USER JWT").ok_or_else(|| failed("contains no user JWT".into()))?;
    let seed = section(&text, "NKEY SEED").ok_or_else(|| failed("contains no NKey seed".into()))?;
    Ok((
        Zeroizing::new(jwt.to_owned()),
        Zeroizing::new(seed.to_owned()),
    ))
}

/// Returns the first line between the markers `BEGIN … <title>` and `END …`.
fn section<'a>(text: &'a str, title: &str) -> Option<&'a str> {
    let is_marker = |line: &str| line.starts_with("---");
    let mut lines = text.lines().map(str::trim);
    lines.find(|line| is_marker(line) && line.contains("BEGIN") && line.contains(title))?;
    lines
        .find(|line| !line.is_empty())
        .filter(|line| !is_marker(line))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn info(nonce: Option<&str>) -> ServerInfo {
        let mut info = ServerInfo::default();
        info.nonce = nonce.map(str::to_owned);
        info
    }

    fn fields(auth: &Auth, nonce: Option<&str>) -> Result<serde_json::Value, String> {
        let line = connect_line(auth, "divvy", true, &info(nonce))?;
        let json = line.strip_prefix(b"CONNECT ").unwrap();
        assert!(json.ends_with(b"\r\n"));
        Ok(serde_json::from_slice(json).unwrap())
    }

    fn secret(text: &str) -> Secret {
        Zeroizing::new(text.to_owned())
    }

    #[test]
    fn nkeys_agree_with_the_reference_implementation() {
        for _ in 0..20 {
            let reference = nkeys::KeyPair::new_user();
            let seed = reference.seed().unwrap();
            let ours = KeyPair::from_seed(&seed).unwrap();
            assert_eq!(ours.public_key(), reference.public_key());
            let signature = BASE64URL.decode(ours.sign("nonce")).unwrap();
            reference.verify(b"nonce", &signature).unwrap();
        }
        let account = nkeys::KeyPair::new_account().seed().unwrap();
        let mut broken = nkeys::KeyPair::new_user().seed().unwrap();
        broken.replace_range(
            20..21,
            if broken[20..].starts_with('A') {
                "B"
            } else {
                "A"
            },
        );
        for seed in [
            "",
            "SU",
            "SUNOTASEED",
            "\u{e9}",
            &account,
            &broken,
            &"S".repeat(58),
        ] {
            assert!(!is_user_seed(seed), "{seed}");
        }
    }

    #[test]
    fn each_kind_of_credentials_has_its_fields() {
        let seed = nkeys::KeyPair::new_user().seed().unwrap();
        let mut file = tempfile::NamedTempFile::new().unwrap();
        write!(
            file,
            "-----BEGIN NATS USER JWT-----\n a.b.c \n------END NATS USER JWT------\n\nwords\n\
             -----BEGIN USER NKEY SEED-----\r\n{seed}\r\n------END USER NKEY SEED------\n"
        )
        .unwrap();
        let callback = |credentials: NatsCredentials| {
            Auth::Callback(Arc::new(move |nonce| {
                assert_eq!(nonce, b"n");
                Ok(credentials.clone())
            }))
        };
        let jwt = NatsCredentials::Jwt {
            jwt: "j".into(),
            signature: vec![1; 64],
        };
        for (auth, present) in [
            (Auth::Anonymous, &[][..]),
            (
                Auth::UserPassword("u".into(), secret("p")),
                &["pass", "user"],
            ),
            (Auth::Token(secret("t")), &["auth_token"]),
            (Auth::Nkey(secret(&seed)), &["nkey", "sig"]),
            (Auth::Credentials(file.path().to_owned()), &["jwt", "sig"]),
            (
                callback(NatsCredentials::Token("t".into())),
                &["auth_token"],
            ),
            (callback(jwt), &["jwt", "sig"]),
        ] {
            let fields = fields(&auth, Some("n")).unwrap();
            let fields = fields.as_object().unwrap();
            for name in ["user", "pass", "auth_token", "jwt", "nkey", "sig"] {
                assert_eq!(fields.contains_key(name), present.contains(&name), "{name}");
            }
        }
    }

    #[test]
    fn missing_credentials_are_named_and_no_secret_is_shown() {
        let seed = nkeys::KeyPair::new_user().seed().unwrap();
        let failed = |auth: &Auth| fields(auth, None).unwrap_err();
        assert!(failed(&Auth::Nkey(secret(&seed))).contains("no nonce"));
        let why = failed(&Auth::Credentials("/no/such.creds".into()));
        assert!(
            why.contains("/no/such.creds") && why.contains("No such file"),
            "{why}"
        );
        let mut file = tempfile::NamedTempFile::new().unwrap();
        write!(file, "-----BEGIN NATS USER JWT-----\nx\n---\n").unwrap();
        let why = failed(&Auth::Credentials(file.path().to_owned()));
        assert!(why.contains("no NKey seed"), "{why}");
        let why = failed(&Auth::Callback(Arc::new(|_| Err("vault sealed".into()))));
        assert!(why.contains("vault sealed"), "{why}");
        let why = failed(&Auth::Nkey(secret("SUSECRETSEED")));
        assert!(!why.contains("SECRET"), "{why}");
        let shown = format!("{:?}", NatsCredentials::Token("s3cret".into()));
        assert!(!shown.contains("s3cret"));
    }

    #[test]
    fn callback_that_panics_is_an_error() {
        let auth = Auth::Callback(Arc::new(|_| panic!("as the test wants")));
        assert!(fields(&auth, None).unwrap_err().contains("panicked"));
    }
}
