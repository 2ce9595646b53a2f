//! The instance of a process, see [`ManagerConfig::instance`](crate::ManagerConfig::instance).

use crate::error::{Code, Error, Result};
use crate::wire::instance_fault;

/// Variable that `@pod` stands for.
const POD_NAME: &str = "POD_NAME";

/// Longest name of a host, in bytes: `HOST_NAME_MAX` is at most 255.
const HOST_NAME_MAX: usize = 256;

/// Replaces `@hostname` and `@pod` by what they stand for.
///
/// # Errors
/// [`Code::InvalidConfig`] if that is missing or cannot be an instance.
pub(super) fn resolve(instance: &str) -> Result<String> {
    resolve_with(instance, |name| std::env::var(name).ok(), host_name)
}

fn resolve_with(
    instance: &str,
    variable: impl Fn(&str) -> Option<String>,
    host_name: impl Fn() -> Option<String>,
) -> Result<String> {
    let invalid = |why: String| Err(Error::new(Code::InvalidConfig, why));
    let resolved = match instance {
        "@hostname" => host_name(),
        "@pod" => variable(POD_NAME),
        plain => return Ok(plain.to_owned()),
    };
    let Some(resolved) = resolved.filter(|text| !text.is_empty()) else {
        return invalid(match instance {
            "@pod" => format!(
                "instance = @pod: the environment variable {POD_NAME} is not set; set it from \
                 metadata.name (downward API)"
            ),
            _ => "instance = @hostname: the host has no name; set instance to a name".into(),
        });
    };
    match instance_fault(&resolved) {
        Some(fault) => invalid(format!("instance = {instance}: {resolved:?} {fault}")),
        None => Ok(resolved),
    }
}

fn host_name() -> Option<String> {
    let mut buffer = [0_u8; HOST_NAME_MAX];
    // SAFETY: the pointer and the length are those of the buffer.
    let status = unsafe { libc::gethostname(buffer.as_mut_ptr().cast(), buffer.len()) };
    let name = buffer.split(|&byte| byte == 0).next()?;
    let name = String::from_utf8(name.to_vec()).ok()?;
    (status == 0).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(instance: &str, pod: Option<&str>, host: Option<&str>) -> Result<String> {
        let variable = |name: &str| {
            assert_eq!(name, "POD_NAME");
            pod.map(str::to_owned)
        };
        resolve_with(instance, variable, || host.map(str::to_owned))
    }

    #[test]
    fn instance_is_taken_from_pod_or_host_name_on_request() {
        assert_eq!(resolved("", Some("pod-7"), Some("h")).unwrap(), "");
        assert_eq!(resolved("a", Some("pod-7"), Some("h")).unwrap(), "a");
        assert_eq!(resolved("@pod", Some("pod-7"), None).unwrap(), "pod-7");
        assert_eq!(resolved("@hostname", None, Some("h.x")).unwrap(), "h.x");
        assert_eq!(Some(resolve("@hostname").unwrap()), host_name());
    }

    #[test]
    fn missing_or_unusable_name_is_config_error_that_names_source() {
        for (instance, pod, host, word) in [
            ("@pod", None, Some("h"), "POD_NAME"),
            ("@pod", Some(""), Some("h"), "POD_NAME"),
            ("@pod", Some("a b"), None, "\"a b\""),
            ("@hostname", None, None, "no name"),
            ("@hostname", None, Some("a\u{7}"), "not allowed"),
        ] {
            let error = resolved(instance, pod, host).unwrap_err();
            assert_eq!(error.code(), Code::InvalidConfig);
            assert!(error.message().contains(word), "{error}");
        }
    }
}
