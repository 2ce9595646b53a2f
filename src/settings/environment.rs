//! Settings from environment variables.

use super::{Origin, Settings};
use crate::error::{Error, Result};
use crate::settings::keys;
use crate::types::truncated;

impl Settings {
    /// Sets settings from environment variables: the prefix and the setting's name in upper case,
    /// such as `DIVVY_HEARTBEAT_TTL`. An empty variable counts as not set.
    ///
    /// Returns one warning for each variable with the prefix that names no setting. With `strict`
    /// (`DIVVY_STRICT=true`) such a variable is an error instead. Variables of the form that
    /// Kubernetes and Docker inject for a service (`DIVVY_SERVICE_HOST`, `DIVVY_PORT`,
    /// `DIVVY_PORT_4222_TCP_ADDR`) are ignored.
    ///
    /// # Errors
    /// [`Code::InvalidConfig`](crate::error::Code::InvalidConfig) for a value that cannot be read,
    /// and with `strict` for an unknown name.
    pub fn merge_env<'a>(
        &mut self,
        prefix: &str,
        variables: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Vec<String>> {
        let mut next = self.clone();
        let mut unknown = Vec::new();
        for (variable, value) in variables {
            let Some(name) = variable.strip_prefix(prefix) else {
                continue;
            };
            if value.is_empty() || prefix.is_empty() {
                continue;
            }
            let setting = name.to_ascii_lowercase();
            if keys::find(&setting).is_none() {
                if !is_injected(name) {
                    unknown.push((variable, setting));
                }
                continue;
            }
            let origin = Origin::Environment(variable.to_owned());
            next.apply(&setting, value, origin).map_err(|error| {
                Error::new(error.code(), format!("{variable}: {}", error.message()))
            })?;
        }
        let mut warnings = Vec::new();
        for (variable, setting) in unknown {
            let error = super::unknown(&setting);
            let shown = truncated(variable, 80);
            if next.values.strict {
                let message = format!("{shown}: {}", error.message());
                return Err(Error::new(error.code(), message));
            }
            warnings.push(format!(
                "ignoring environment variable {shown}: {}",
                error.message()
            ));
        }
        *self = next;
        Ok(warnings)
    }
}

/// Whether the rest of a variable's name has the form that Kubernetes and Docker inject for a
/// service.
fn is_injected(name: &str) -> bool {
    if name.ends_with("SERVICE_HOST") || name.ends_with("SERVICE_PORT") || name == "PORT" {
        return true;
    }
    if name.contains("SERVICE_PORT_") || name.ends_with("_PORT") {
        return true;
    }
    // PORT_4222_TCP, PORT_4222_TCP_ADDR, …
    let Some((_, port)) = name.split_once("PORT_") else {
        return false;
    };
    let mut parts = port.split('_');
    let number = parts.next().unwrap_or_default();
    let is_number = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
    is_number && matches!(parts.next(), Some("TCP" | "UDP" | "SCTP"))
}
