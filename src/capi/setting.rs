//! The settings, one by one, for tools that list them.

use std::ffi::c_char;
use std::sync::Arc;

use super::config::{self, divvy_config};
use super::guard::{self, Detail, Failure, known};
use super::registry::{HandleKind, Registry};
use super::status::divvy_status;
use super::text::{self, Out, Terminated};
use crate::vocabulary::SettingField;

/// A setting with its properties. A snapshot: later changes of the configuration do not appear in it.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct divvy_setting {
    /// Private. 0: none.
    pub id: u64,
}

static SETTINGS: Registry<Vec<(SettingField, Terminated)>> = Registry::new(HandleKind::Setting);

/// Returns the setting at an index. Count from 0 until NOT_FOUND to list all settings.
///
/// Parameters: config - the configuration that supplies the values; {0}: the defaults. index - 0 or
/// more. out - receives the handle; not NULL. errbuf, errlen - buffer that receives the error text;
/// NULL allowed.
/// Returns: OK; NOT_FOUND - there are fewer settings.
/// Ownership: the caller frees it with divvy_setting_free(); it may outlive the configuration.
/// Thread: any. Does not block.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn divvy_setting_at(
    config: divvy_config,
    index: usize,
    out: *mut divvy_setting,
    errbuf: *mut c_char,
    errlen: usize,
) -> divvy_status {
    guard::call(Detail::new(errbuf, errlen), || {
        let out = Out::new(out, "out")?;
        let fields = config::blueprint(config)?.settings.describe(index);
        let fields = fields.ok_or_else(|| {
            Failure::new(divvy_status::DIVVY_NOT_FOUND, "there are fewer settings")
        })?;
        let fields = fields
            .into_iter()
            .map(|(field, text)| (field, Terminated::new(text)));
        let id = SETTINGS.insert(Arc::new(fields.collect()))?;
        out.write(divvy_setting { id });
        Ok(())
    })
}

/// Returns a property of a setting.
///
/// Parameters: setting - the setting. field - a divvy_setting_field. length - receives the length in
/// bytes; NULL allowed.
/// Returns: the text; an empty string for an invalid handle or field. Never NULL.
/// Ownership: valid until divvy_setting_free().
/// Thread: any. Does not block.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn divvy_setting_text(
    setting: divvy_setting,
    field: i32,
    length: *mut usize,
) -> *const c_char {
    let found = guard::or(None, || {
        let field = known(
            SettingField::from_number(field),
            field,
            "divvy_setting_field",
        )?;
        SETTINGS.with(setting.id, |fields| {
            let found = fields.iter().find(|(known, _)| *known == field);
            found.map(|(_, text)| text.expose(length))
        })
    });
    found.unwrap_or_else(|| text::empty(length))
}

/// Frees a setting.
///
/// Parameters: setting - the setting; {0} is allowed and does nothing.
/// Returns: OK; BAD_HANDLE, also on the second call.
/// Thread: any. Does not block.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn divvy_setting_free(setting: divvy_setting) -> divvy_status {
    guard::call(Detail::new(std::ptr::null_mut(), 0), || {
        if setting.id != 0 {
            SETTINGS.remove(setting.id)?;
        }
        Ok(())
    })
}
