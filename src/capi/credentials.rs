//! NATS credentials that the host supplies for each login.
#![cfg_attr(
    not(feature = "nats"),
    allow(dead_code, unused_imports, reason = "no login asks for them")
)]

use std::ffi::{c_char, c_void};
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use zeroize::Zeroizing;

use super::callback;
use super::guard::{self, Detail, Failure};
use super::registry::{HandleKind, Registry};
use super::status::divvy_status;
use super::text;
use super::userdata::UserData;
use crate::error::Result;
use crate::settings::Settings;
use crate::store::Store;

/// The longest JWT, in bytes.
const JWT_MAX: usize = 65_536;
/// Bytes of an Ed25519 signature.
const SIGNATURE_BYTES: usize = 64;

/// The credentials of one login. Empty until divvy_credentials_set_token() or
/// divvy_credentials_set_jwt() fills it.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct divvy_credentials {
    /// Private. 0: none.
    pub id: u64,
}

/// Supplies the credentials of one login, at each connect and reconnect. Set them with
/// divvy_credentials_set_token() or divvy_credentials_set_jwt().
///
/// Parameters: userdata - the value set together with the callback. nonce, nonce_length - the bytes
/// that the server wants signed, valid until the callback returns; length 0: the server accepts no
/// signature. credentials - valid until the callback returns; must not be freed.
/// Returns: DIVVY_OK (0); anything else is a failure: the login fails and is retried.
/// Thread: "dv-nats-io", one call at a time for each store. May block; until it returns, the store is
/// disconnected and stopping it times out. Must not stop or free the store (divvy_store_stop() returns
/// WOULD_DEADLOCK), must not throw or call longjmp.
pub type divvy_credentials_fn = Option<
    unsafe extern "C" fn(
        userdata: *mut c_void,
        nonce: *const c_char,
        nonce_length: usize,
        credentials: divvy_credentials,
    ) -> i32,
>;

/// What the host has supplied.
#[cfg_attr(
    not(feature = "nats"),
    allow(dead_code, reason = "no login asks for it")
)]
enum Supplied {
    Token(Zeroizing<String>),
    Jwt(Zeroizing<String>, [u8; SIGNATURE_BYTES]),
}

static SUPPLIED: Registry<Mutex<Option<Supplied>>> = Registry::new(HandleKind::Credentials);

/// The host's callback.
pub(super) struct HostCredentials {
    pub call: unsafe extern "C" fn(*mut c_void, *const c_char, usize, divvy_credentials) -> i32,
    pub userdata: UserData,
}

#[cfg(feature = "nats")]
impl HostCredentials {
    /// Connects to NATS with what the callback supplies.
    pub fn connect(
        self: Arc<Self>,
        settings: &Settings,
        deadline: Instant,
    ) -> Result<Arc<dyn Store>> {
        let supply = move |nonce: &[u8]| self.supply(nonce);
        crate::runtime::connect_nats_with_credentials(settings, supply, deadline)
    }

    fn supply(
        &self,
        nonce: &[u8],
    ) -> std::result::Result<crate::store::nats::NatsCredentials, String> {
        use crate::store::nats::NatsCredentials;
        let supplied = Arc::new(Mutex::new(None));
        let id = SUPPLIED
            .insert(Arc::clone(&supplied))
            .map_err(|failure| failure.message.into_owned())?;
        let called = callback::call_fallible(|| {
            let (data, length) = (nonce.as_ptr().cast(), nonce.len());
            // SAFETY: the host gave this function to be called with this userdata, from any thread.
            unsafe {
                (self.call)(
                    self.userdata.pointer(),
                    data,
                    length,
                    divvy_credentials { id },
                )
            }
        });
        let _ = SUPPLIED.remove(id); // already removed if the host freed it, against the rule
        called?;
        match supplied.lock().take() {
            Some(Supplied::Token(token)) => Ok(NatsCredentials::Token((*token).clone())),
            Some(Supplied::Jwt(jwt, signature)) => Ok(NatsCredentials::Jwt {
                jwt: (*jwt).clone(),
                signature: signature.to_vec(),
            }),
            None => Err("it set no credentials".to_owned()),
        }
    }
}

/// Sets a token. Replaces what was set before.
///
/// Parameters: credentials - as the callback received them. token - not NULL; copied. errbuf, errlen -
/// buffer that receives the error text; NULL allowed.
/// Returns: OK; BAD_HANDLE - the callback has returned; BAD_UTF8; TOO_LONG.
/// Thread: any. Does not block.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn divvy_credentials_set_token(
    credentials: divvy_credentials,
    token: *const c_char,
    errbuf: *mut c_char,
    errlen: usize,
) -> divvy_status {
    guard::call(Detail::new(errbuf, errlen), || {
        let supplied = SUPPLIED.get(credentials.id)?;
        // SAFETY: a text by the header's rule.
        let token = unsafe { text::read(token, "token") }?;
        *supplied.lock() = Some(Supplied::Token(Zeroizing::new(token.to_owned())));
        Ok(())
    })
}

/// Sets a user JWT and the signature of the server's nonce. Replaces what was set before.
///
/// Parameters: credentials - as the callback received them. jwt, jwt_length - the JWT in its text form,
/// not NULL, 1 to 65536 bytes; no NUL is needed; copied. signature, signature_length - the Ed25519
/// signature of the nonce by the user's key, not NULL, 64 bytes, not encoded; copied. errbuf, errlen -
/// buffer that receives the error text; NULL allowed.
/// Returns: OK; BAD_HANDLE - the callback has returned; INVALID_ARGUMENT - no JWT, or the signature has
/// another length; BAD_UTF8; TOO_LONG.
/// Thread: any. Does not block.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn divvy_credentials_set_jwt(
    credentials: divvy_credentials,
    jwt: *const c_char,
    jwt_length: usize,
    signature: *const c_char,
    signature_length: usize,
    errbuf: *mut c_char,
    errlen: usize,
) -> divvy_status {
    guard::call(Detail::new(errbuf, errlen), || {
        let supplied = SUPPLIED.get(credentials.id)?;
        let invalid = |why: String| Failure::new(divvy_status::DIVVY_INVALID_ARGUMENT, why);
        // SAFETY: `jwt_length` bytes by the header's rule.
        let jwt = unsafe { text::read_counted(jwt, jwt_length, JWT_MAX, "jwt") }?;
        if jwt.is_empty() {
            return Err(invalid("jwt is empty".to_owned()));
        }
        // SAFETY: `signature_length` bytes by the header's rule.
        let signature =
            unsafe { text::read_bytes(signature.cast(), signature_length, JWT_MAX, "signature") }?;
        let signature = signature.try_into().map_err(|_| {
            invalid(format!(
                "signature has {signature_length} bytes, an Ed25519 signature has {SIGNATURE_BYTES}"
            ))
        })?;
        let jwt = Zeroizing::new(jwt.to_owned());
        *supplied.lock() = Some(Supplied::Jwt(jwt, signature));
        Ok(())
    })
}
