//! A secret is not in the memory of the process, nor in a core dump, after its owner was dropped.

use std::fs::{File, read_to_string};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use divvy::Settings;
use divvy::runtime::connect_nats;

use crate::alone;
use crate::support::nats_binary::NEWEST;
use crate::support::nats_server::Setup;

/// A secret that this test stores only masked, so that it does not find its own copy.
struct Secret(Vec<u8>);

const MASK: u8 = 0x5a;

impl Secret {
    fn new() -> Self {
        Self((0..32).map(|_| fastrand::u8(b'a'..=b'z') ^ MASK).collect())
    }

    /// Passes the secret to a closure and wipes the copy.
    fn with<T>(&self, act: impl FnOnce(&str) -> T) -> T {
        let text: String = self.0.iter().map(|byte| char::from(byte ^ MASK)).collect();
        let text = zeroize::Zeroizing::new(text);
        act(&text)
    }

    /// Returns how often the memory of this process contains it.
    fn copies(&self) -> usize {
        let maps = read_to_string("/proc/self/maps").expect("the maps of this process");
        let memory = File::open("/proc/self/mem").expect("the memory of this process");
        let mut copies = 0;
        let mut chunk = vec![0; 1 << 20];
        for map in maps.lines().filter(|map| map.contains(" rw")) {
            let (start, rest) = map.split_once('-').expect("a range");
            let end = rest.split_once(' ').expect("an end").0;
            let number = |hex| u64::from_str_radix(hex, 16).expect("an address");
            let (mut at, end) = (number(start), number(end));
            let overlap = self.0.len() - 1;
            while at + (overlap as u64) < end {
                let length = chunk.len().min(usize::try_from(end - at).expect("it fits"));
                let read = memory.read_at(&mut chunk[..length], at).unwrap_or(0);
                let matches = |window: &&[u8]| {
                    let mut pairs = window.iter().zip(&self.0);
                    pairs.all(|(byte, masked)| byte ^ MASK == *masked)
                };
                copies += chunk[..read].windows(self.0.len()).filter(matches).count();
                // The chunk is memory of this process too.
                chunk.fill(0);
                at += (length - overlap) as u64;
            }
        }
        copies
    }
}

#[test]
fn secrets_are_wiped_from_memory_when_settings_and_store_are_dropped() {
    let _alone = alone();
    let password = Secret::new();
    let seed = Secret::new();
    let in_url = Secret::new();
    {
        let mut settings = Settings::new();
        settings.set("nats_user", "joe").unwrap();
        seed.with(|seed| {
            let json = zeroize::Zeroizing::new(format!(r#"{{"nats_nkey_seed":"{seed}"}}"#));
            settings.merge_json(&json).unwrap();
        });
        password.with(|password| {
            settings.set("nats_password", "the one before").unwrap();
            settings
                .merge_env("D_", [("D_NATS_PASSWORD", password)])
                .unwrap();
        });
        in_url.with(|password| {
            let url = zeroize::Zeroizing::new(format!("nats://joe:{password}@127.0.0.1:9"));
            settings.set("nats_url", &url).unwrap();
        });
        assert!(password.copies() >= 1 && seed.copies() >= 1 && in_url.copies() >= 1);
        let other = settings.clone();
        assert!(!other.dump().contains("joe:"));
        settings.set("nats_nkey_seed", "").unwrap();
        settings.set("nats_url", "nats://127.0.0.1:9").unwrap();
        // There is no server at this address.
        let soon = Instant::now() + Duration::from_millis(200);
        assert!(connect_nats(&settings, soon).is_err());
    }
    let left = [&password, &seed, &in_url].map(Secret::copies);
    assert_eq!(left, [0, 0, 0], "copies of password, seed and URL");
}

/// Neither the client's buffers nor those of TLS keep the CONNECT line. A server without accounts accepts
/// any password.
#[test]
fn login_leaves_no_secret_in_memory() {
    let _alone = alone();
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/tls");
    let tls =
        format!("tls {{ cert_file: \"{folder}/server.pem\", key_file: \"{folder}/server.key\" }}");
    for (config, is_secure) in [("", false), (tls.as_str(), true)] {
        let server = Setup::new(NEWEST).config(config).start();
        for setting in ["nats_password", "nats_token"] {
            let secret = Secret::new();
            {
                let mut settings = Settings::new();
                settings.set("nats_url", &server.url()).unwrap();
                if is_secure {
                    let authority = format!("{folder}/ca.pem");
                    settings.set("nats_tls_ca", &authority).unwrap();
                }
                if setting == "nats_password" {
                    settings.set("nats_user", "joe").unwrap();
                }
                secret.with(|secret| settings.set(setting, secret).unwrap());
                let soon = Instant::now() + Duration::from_secs(10);
                let store = connect_nats(&settings, soon).unwrap();
                assert!(secret.copies() >= 1);
                store.stop(soon).unwrap();
            }
            assert_eq!(secret.copies(), 0, "{setting}, TLS: {is_secure}");
        }
    }
}
