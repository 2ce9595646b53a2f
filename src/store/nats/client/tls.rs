//! TLS with rustls and ring.

use std::io;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

/// TLS settings of a connection.
#[derive(Clone, Debug, Default)]
pub struct TlsSettings {
    pub required: bool,
    /// Whether the handshake precedes the greeting of the server.
    pub first: bool,
    /// PEM files of the trusted authorities. Empty: those of the system.
    pub authorities: Vec<PathBuf>,
    /// PEM files of the client's certificate and key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

impl TlsSettings {
    /// Returns whether a connection without TLS is rejected. A CA or a certificate implies it.
    pub fn is_required(&self) -> bool {
        self.required || self.first || !self.authorities.is_empty() || self.identity.is_some()
    }

    /// Creates a session with a server whose certificate must have this name. Reads the files each
    /// time, so that renewed certificates are used.
    ///
    /// # Errors
    /// Why a file cannot be used, with its name.
    pub fn session(&self, name: &str) -> Result<Box<ClientConnection>, String> {
        let name = ServerName::try_from(name.to_owned())
            .map_err(|_| format!("{name:?} is not a name that a certificate can have"))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(self.roots()?);
        let config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let chain = certificates(certificate)?;
                let pem = PrivateKeyDer::from_pem_file(key)
                    .map_err(|error| unusable(key, &error.to_string()))?;
                builder
                    .with_client_auth_cert(chain, pem)
                    .map_err(|error| unusable(key, &error.to_string()))?
            }
        };
        let session = ClientConnection::new(Arc::new(config), name);
        session.map(Box::new).map_err(|error| error.to_string())
    }

    fn roots(&self) -> Result<RootCertStore, String> {
        let mut roots = RootCertStore::empty();
        if self.authorities.is_empty() {
            let found = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(found.certs);
            if roots.is_empty() {
                let why = found.errors.first().map(ToString::to_string);
                return Err(format!(
                    "no trusted authorities found on this system ({}); set nats_tls_ca",
                    why.unwrap_or_else(|| "none installed".to_owned())
                ));
            }
        }
        for file in &self.authorities {
            for certificate in certificates(file)? {
                roots
                    .add(certificate)
                    .map_err(|error| unusable(file, &error.to_string()))?;
            }
        }
        Ok(roots)
    }
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let certificates = read.map_err(|error| unusable(file, &error.to_string()))?;
    if certificates.is_empty() {
        return Err(unusable(file, "contains no certificate"));
    }
    Ok(certificates)
}

fn unusable(file: &Path, why: &str) -> String {
    format!("cannot use {}: {why}", file.display())
}

/// Reads and writes encrypted bytes until the socket would block.
///
/// Returns whether the peer has closed the connection.
///
/// # Errors
/// A broken socket, or a peer that violates TLS or is not trusted.
pub fn exchange(session: &mut ClientConnection, socket: &TcpStream) -> io::Result<bool> {
    let mut socket = socket;
    let mut is_closed = false;
    while session.wants_read() {
        match session.read_tls(&mut socket) {
            Ok(0) => {
                is_closed = true;
                break;
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        }
        if let Err(error) = session.process_new_packets() {
            // Send the alert to the peer, if it still reads.
            let _ = session.write_tls(&mut socket);
            return Err(io::Error::new(io::ErrorKind::InvalidData, error));
        }
    }
    write(session, socket)?;
    Ok(is_closed)
}

/// Writes encrypted bytes until the socket would block. The session keeps the rest.
///
/// # Errors
/// A broken socket.
pub fn write(session: &mut ClientConnection, socket: &TcpStream) -> io::Result<()> {
    let mut socket = socket;
    while session.wants_write() {
        match session.write_tls(&mut socket) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authority_or_certificate_requires_tls() {
        assert!(!TlsSettings::default().is_required());
        let with_authority = TlsSettings {
            authorities: vec!["ca".into()],
            ..TlsSettings::default()
        };
        let with_identity = TlsSettings {
            identity: Some(("c".into(), "k".into())),
            ..TlsSettings::default()
        };
        let first = TlsSettings {
            first: true,
            ..TlsSettings::default()
        };
        for settings in [with_authority, with_identity, first] {
            assert!(settings.is_required());
        }
    }

    #[test]
    fn files_that_cannot_be_used_are_named() {
        let missing = TlsSettings {
            authorities: vec!["/no/such/ca.pem".into()],
            ..TlsSettings::default()
        };
        let why = missing.session("localhost").unwrap_err();
        assert!(why.contains("/no/such/ca.pem"), "{why}");
        let empty = tempfile::NamedTempFile::new().unwrap();
        let empty = TlsSettings {
            authorities: vec![empty.path().to_owned()],
            ..TlsSettings::default()
        };
        let why = empty.session("localhost").unwrap_err();
        assert!(why.contains("no certificate"), "{why}");
    }
}
