//! `INFO`, the greeting of a server.

use serde::Deserialize;

/// `max_payload` of a server that does not state it, in bytes.
const MAX_PAYLOAD_DEFAULT: usize = 1024 * 1024;

/// The fields of `INFO` that the store uses. Unknown ones are ignored.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ServerInfo {
    pub server_id: String,
    pub server_name: String,
    pub version: String,
    max_payload: usize,
    pub headers: bool,
    pub auth_required: bool,
    pub tls_required: bool,
    pub tls_available: bool,
    /// The nonce to sign for a login with NKey or JWT.
    pub nonce: Option<String>,
    /// The other servers of the cluster, `host:port`.
    pub connect_urls: Vec<String>,
    /// Whether the server stores streams itself.
    pub jetstream: bool,
    /// The name of its cluster, if it is part of one.
    pub cluster: Option<String>,
    /// Lame duck mode: the server is about to close its connections.
    pub ldm: bool,
}

impl ServerInfo {
    /// Returns the maximum size of a message in bytes, headers included.
    pub fn max_payload(&self) -> usize {
        match self.max_payload {
            0 => MAX_PAYLOAD_DEFAULT,
            limit => limit.min(super::proto::MESSAGE_MAX),
        }
    }
}
