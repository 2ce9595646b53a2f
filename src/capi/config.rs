//! The configuration: settings by name, and the host's callbacks.

use std::ffi::{c_char, c_void};
use std::sync::Arc;

use parking_lot::Mutex;
use zeroize::Zeroizing;

use super::credentials::{HostCredentials, divvy_credentials_fn};
use super::election::{HostElection, divvy_campaign_fn, divvy_resign_fn};
use super::guard::{self, Detail, Failure};
use super::partitions::{HostSource, divvy_source_fn};
use super::registry::{HandleKind, Registry};
use super::status::divvy_status;
use super::strategy::{HostStrategy, divvy_strategy_fn};
use super::text::{self, DIVVY_BYTES_MAX, Out, divvy_text};
use super::userdata::{UserData, divvy_destroy_fn};
use crate::settings::Settings;
use crate::strategy::Strategy;

/// Settings by name. divvy_config_dump() lists all names with their values. Values are text:
/// durations such as "1m30s", "250ms" or "0", numbers, "true" and "false", lists separated by commas.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct divvy_config {
    /// Private. 0: none.
    pub id: u64,
}

/// What a calculator, a manager or a store is made from.
#[derive(Clone, Default)]
pub(super) struct Blueprint {
    pub settings: Settings,
    pub source: Option<Arc<HostSource>>,
    pub strategy: Option<Arc<HostStrategy>>,
    pub election: Option<Arc<HostElection>>,
    pub credentials: Option<Arc<HostCredentials>>,
}

impl Blueprint {
    /// The host's strategy, or the one that is named.
    pub fn strategy(&self) -> Arc<dyn Strategy> {
        if let Some(strategy) = &self.strategy {
            return Arc::clone(strategy) as Arc<dyn Strategy>;
        }
        self.settings.build_strategy()
    }
}

static CONFIGS: Registry<Mutex<Blueprint>> = Registry::new(HandleKind::Config);

/// A copy of what a configuration says; all defaults for {0}.
pub(super) fn blueprint(config: divvy_config) -> guard::Outcome<Blueprint> {
    if config.id == 0 {
        return Ok(Blueprint::default());
    }
    let config = CONFIGS.get(config.id)?;
    let blueprint = config.lock().clone();
    Ok(blueprint)
}

/// Creates a configuration with default settings.
///
/// Parameters: out - receives the handle; not NULL. errbuf, errlen - buffer that receives the error
/// text; NULL allowed.
/// Returns: OK.
/// Ownership: the caller frees it with divvy_config_free().
/// Thread: any. Does not block.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn divvy_config_new(
    out: *mut divvy_config,
    errbuf: *mut c_char,
    errlen: usize,
) -> divvy_status {
    guard::call(Detail::new(errbuf, errlen), || {
        let out = Out::new(out, "out")?;
        let id = CONFIGS.insert(Arc::default())?;
        out.write(divvy_config { id });
        Ok(())
    })
}

/// Frees a configuration. Calculators, managers and stores created from it are not affected.
///
/// Parameters: config - the configuration; {0} is allowed and does nothing.
/// Returns: OK; BAD_HANDLE, also on the second call.
/// Thread: any. Does not block; may run the destroy functions of callbacks set on it.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn divvy_config_free(config: divvy_config) -> divvy_status {
    guard::call(Detail::new(std::ptr::null_mut(), 0), || {
        if config.id != 0 {
            CONFIGS.remove(config.id)?;
        }
        Ok(())
    })
}

/// Sets one setting. A second call replaces the value.
///
/// Parameters: config - the configuration. key - its name, not NULL. value - its value as text, not
/// NULL. errbuf, errlen - buffer that receives the error text; NULL allowed.
/// Returns: OK; INVALID_CONFIG - unknown setting (the detail suggests the nearest name) or invalid
/// value: nothing changes; BAD_UTF8; TOO_LONG.
/// Thread: any. Does not block.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn divvy_config_set(
    config: divvy_config,
    key: *const c_char,
    value: *const c_char,
    errbuf: *mut c_char,
    errlen: usize,
) -> divvy_status {
    guard::call(Detail::new(errbuf, errlen), || {
        let config = CONFIGS.get(config.id)?;
        // SAFETY: both are texts by the header's rule.
        let (key, value) = unsafe { (text::read(key, "key")?, text::read(value, "value")?) };
        Ok(config.lock().settings.set(key, value)?)
    })
}

/// Sets every member of a JSON object: {"cooldown": "5s", "restart_ratio": 0.4}. Values are strings,
/// numbers, booleans or lists of strings; null means the default.
///
/// Parameters: config - the configuration. json, length - the text, not NULL unless length is 0, and
/// its bytes, at most DIVVY_BYTES_MAX; no NUL is needed. errbuf, errlen - buffer that receives the
/// error text; NULL allowed.
/// Returns: OK; INVALID_CONFIG - not a JSON object, unknown setting or invalid value: nothing
/// changes; BAD_UTF8; TOO_LONG.
/// Thread: any. Does not block.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn divvy_config_merge_json(
    config: divvy_config,
    json: *const c_char,
    length: usize,
    errbuf: *mut c_char,
    errlen: usize,
) -> divvy_status {
    guard::call(Detail::new(errbuf, errlen), || {
        let config = CONFIGS.get(config.id)?;
        // SAFETY: `length` bytes by the header's rule.
        let json = unsafe { text::read_counted(json, length, DIVVY_BYTES_MAX, "json") }?;
        Ok(config.lock().settings.merge_json(json)?)
    })
}

/// Sets settings from environment variables: the prefix and the setting's name in upper case, such as
/// DIVVY_COOLDOWN=5s. An empty variable is ignored. A variable with the prefix that names no setting
/// is ignored and logged as a warning, unless the setting "strict" is true. Variables of the form that
/// Kubernetes injects for a service, such as DIVVY_SERVICE_HOST, are ignored.
///
/// Parameters: config - the configuration. prefix - prefix of the variables, not empty; NULL:
/// "DIVVY_". errbuf, errlen - buffer that receives the error text; NULL allowed.
/// Returns: OK; INVALID_CONFIG - a variable with the prefix has an invalid value or, with "strict",
/// names an unknown setting: nothing changes; INVALID_ARGUMENT - the prefix is empty; BAD_UTF8;
/// TOO_LONG.
/// Thread: any, while no other thread changes the environment. Does not block.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn divvy_config_merge_env(
    config: divvy_config,
    prefix: *const c_char,
    errbuf: *mut c_char,
    errlen: usize,
) -> divvy_status {
    guard::call(Detail::new(errbuf, errlen), || {
        let config = CONFIGS.get(config.id)?;
        // SAFETY: a text or NULL by the header's rule.
        let prefix = unsafe { text::read_optional(prefix, "prefix") }?.unwrap_or("DIVVY_");
        if prefix.is_empty() {
            return Err(Failure::new(
                divvy_status::DIVVY_INVALID_ARGUMENT,
                "prefix is empty: every variable would be a setting",
            ));
        }
        let mut variables = Vec::new();
        for (name, value) in std::env::vars_os() {
            let Some(name) = name.to_str().filter(|name| name.starts_with(prefix)) else {
                continue;
            };
            let Some(value) = value.to_str() else {
                return Err(Failure::new(
                    divvy_status::DIVVY_BAD_UTF8,
                    format!("the variable {name} is not UTF-8"),
                ));
            };
            variables.push((name.to_owned(), Zeroizing::new(value.to_owned())));
        }
        let variables = variables
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()));
        for warning in config.lock().settings.merge_env(prefix, variables)? {
            log::warn!(target: "divvy::config", "{warning}");
        }
        Ok(())
    })
}

/// Returns every setting with its effective value and its origin, as JSON: {"cooldown": {"value":
/// "10s", "origin": "default"}, ...}. Secrets are masked.
///
/// Parameters: config - the configuration; {0}: the defaults. out - receives the text; not NULL.
/// errbuf, errlen - buffer that receives the error text; NULL allowed.
/// Returns: OK.
/// Ownership: the caller frees the text with divvy_text_free().
/// Thread: any. Does not block.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn divvy_config_dump(
    config: divvy_config,
    out: *mut divvy_text,
    errbuf: *mut c_char,
    errlen: usize,
) -> divvy_status {
    guard::call(Detail::new(errbuf, errlen), || {
        let out = Out::new(out, "out")?;
        let dump = blueprint(config)?.settings.dump();
        out.write(text::hand_out(dump)?);
        Ok(())
    })
}

/// Sets a callback that lists the partitions. Calculators and leading managers call it at the start,
/// before every rebalance, and in divvy_calculator_refresh() or divvy_manager_refresh_partitions().
/// Without a source, push the list with divvy_calculator_set_partitions() or
/// divvy_manager_set_partitions(). A second call replaces the callback.
///
/// Parameters: config - the configuration. source - the callback; NULL removes it. userdata - passed
/// to the callback. destroy - frees userdata when the configuration and everything created from it
/// have been freed; NULL allowed. errbuf, errlen - buffer that receives the error text; NULL allowed.
/// Returns: OK. On failure, userdata remains with the caller and destroy is not called.
/// Thread: any. Does not block.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn divvy_config_set_source(
    config: divvy_config,
    source: divvy_source_fn,
    userdata: *mut c_void,
    destroy: divvy_destroy_fn,
    errbuf: *mut c_char,
    errlen: usize,
) -> divvy_status {
    guard::call(Detail::new(errbuf, errlen), || {
        let config = CONFIGS.get(config.id)?;
        let userdata = UserData::new(userdata, destroy);
        let source = source.map(|call| Arc::new(HostSource { call, userdata }));
        let former = std::mem::replace(&mut config.lock().source, source);
        drop(former); // with no lock held: it may run the host's destroy function
        Ok(())
    })
}

/// Sets a callback that computes plans, instead of the strategy named by the setting "strategy". A
/// second call replaces the callback.
///
/// Parameters: config - the configuration. name - for logs and status, not NULL. strategy - the
/// callback; NULL removes it. userdata - passed to the callback. destroy - frees userdata when the
/// configuration and everything created from it have been freed; NULL allowed. errbuf, errlen -
/// buffer that receives the error text; NULL allowed.
/// Returns: OK; BAD_UTF8; TOO_LONG. On failure, userdata remains with the caller and destroy is not
/// called.
/// Thread: any. Does not block.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn divvy_config_set_strategy(
    config: divvy_config,
    name: *const c_char,
    strategy: divvy_strategy_fn,
    userdata: *mut c_void,
    destroy: divvy_destroy_fn,
    errbuf: *mut c_char,
    errlen: usize,
) -> divvy_status {
    guard::call(Detail::new(errbuf, errlen), || {
        let config = CONFIGS.get(config.id)?;
        // SAFETY: a text by the header's rule.
        let name = unsafe { text::read(name, "name") }?.to_owned();
        let userdata = UserData::new(userdata, destroy);
        let strategy = strategy.map(|call| {
            Arc::new(HostStrategy {
                name,
                call,
                userdata,
            })
        });
        let former = std::mem::replace(&mut config.lock().strategy, strategy);
        drop(former); // with no lock held: it may run the host's destroy function
        Ok(())
    })
}

/// Sets an election of the host, instead of the lease in the store. A second call replaces the
/// callbacks.
///
/// Parameters: config - the configuration. campaign - acquires or renews the leadership; NULL removes
/// the election. resign - releases it; NULL: nothing to release. userdata - passed to both callbacks.
/// destroy - frees userdata when the configuration and everything created from it have been freed;
/// NULL allowed. errbuf, errlen - buffer that receives the error text; NULL allowed.
/// Returns: OK. On failure, userdata remains with the caller and destroy is not called.
/// Thread: any. Does not block.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn divvy_config_set_election(
    config: divvy_config,
    campaign: divvy_campaign_fn,
    resign: divvy_resign_fn,
    userdata: *mut c_void,
    destroy: divvy_destroy_fn,
    errbuf: *mut c_char,
    errlen: usize,
) -> divvy_status {
    guard::call(Detail::new(errbuf, errlen), || {
        let config = CONFIGS.get(config.id)?;
        let userdata = UserData::new(userdata, destroy);
        let election = campaign.map(|campaign| {
            Arc::new(HostElection {
                campaign,
                resign,
                userdata,
            })
        });
        let former = std::mem::replace(&mut config.lock().election, election);
        drop(former); // with no lock held: it may run the host's destroy function
        Ok(())
    })
}

/// Sets a callback that supplies the NATS credentials of each login, for credentials that expire or
/// keys that do not leave their keeper. divvy_store_open() uses it if the setting "store" is "nats". A
/// second call replaces the callback.
///
/// Parameters: config - the configuration, without the settings nats_user, nats_token, nats_creds and
/// nats_nkey_seed. credentials - the callback; NULL removes it. userdata - passed to the callback.
/// destroy - frees userdata when the configuration and every store opened with it have been freed; NULL
/// allowed. errbuf, errlen - buffer that receives the error text; NULL allowed.
/// Returns: OK. On failure, userdata remains with the caller and destroy is not called.
/// Thread: any. Does not block.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn divvy_config_set_credentials(
    config: divvy_config,
    credentials: divvy_credentials_fn,
    userdata: *mut c_void,
    destroy: divvy_destroy_fn,
    errbuf: *mut c_char,
    errlen: usize,
) -> divvy_status {
    guard::call(Detail::new(errbuf, errlen), || {
        let config = CONFIGS.get(config.id)?;
        let userdata = UserData::new(userdata, destroy);
        let credentials = credentials.map(|call| Arc::new(HostCredentials { call, userdata }));
        let former = std::mem::replace(&mut config.lock().credentials, credentials);
        drop(former); // with no lock held: it may run the host's destroy function
        Ok(())
    })
}
