//! What a server says about itself: `INFO`.

use serde::Deserialize;

/// The limit of a server that does not state one.
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
    /// Sign this to log in by NKey or JWT.
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
    /// The most bytes of a message, headers included.
    pub fn max_payload(&self) -> usize {
        match self.max_payload {
            0 => MAX_PAYLOAD_DEFAULT,
            limit => limit.min(super::proto::MESSAGE_MAX),
        }
    }
}
