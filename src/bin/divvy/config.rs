//! `divvy config`: every setting with its value and where that came from.

use clap::Args;
use divvy::settings::keys;
use divvy::vocabulary::SettingField;
use serde_json::{Map, Value};

use crate::connection::load_settings;
use crate::output::{Result, print};

/// Lists the settings: value, origin, type, range, default and help. Secrets are masked.
///
/// Values come from the environment (DIVVY_COOLDOWN=5s) and from --set, which has precedence.
#[derive(Args)]
pub struct Arguments {
    /// Only these settings.
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// A setting, such as cooldown=5s; may be repeated.
    #[arg(long = "set", value_name = "NAME=VALUE")]
    settings: Vec<String>,
    /// Only settings that are not at their default.
    #[arg(long)]
    changed: bool,
    /// Print a JSON list.
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let settings = load_settings(&arguments.settings)?;
    for name in &arguments.names {
        if keys::find(name).is_none() {
            let hint = keys::nearest(name).map(|nearest| format!("; did you mean {nearest}?"));
            return Err(format!("no setting {name}{}", hint.unwrap_or_default()));
        }
    }
    let all = (0..).map_while(|index| settings.describe(index));
    let wanted = all.filter(|fields| {
        let is_named = arguments.names.is_empty() || {
            let name = of(fields, SettingField::Name);
            arguments.names.iter().any(|wanted| wanted == name)
        };
        is_named && !(arguments.changed && of(fields, SettingField::Origin) == "default")
    });
    let text = if arguments.json {
        let list: Vec<Value> = wanted.map(as_json).collect();
        format!("{:#}\n", Value::Array(list))
    } else {
        wanted.map(|fields| as_text(&fields)).collect()
    };
    print(&text).map(drop)
}

fn of(fields: &[(SettingField, String)], wanted: SettingField) -> &str {
    let found = fields.iter().find(|(field, _)| *field == wanted);
    found.map_or("", |(_, text)| text)
}

fn as_text(fields: &[(SettingField, String)]) -> String {
    let of = |field| of(fields, field);
    let shown = |text: &str| match text {
        "" => "empty".to_owned(),
        text => text.to_owned(),
    };
    format!(
        "{} = {}  ({})\n    {}: {}; default {}\n    {}\n\n",
        of(SettingField::Name),
        of(SettingField::Value),
        of(SettingField::Origin),
        of(SettingField::Type),
        of(SettingField::Range),
        shown(of(SettingField::Default)),
        of(SettingField::Help).replace('`', ""),
    )
}

fn as_json(fields: Vec<(SettingField, String)>) -> Value {
    let members = fields
        .into_iter()
        .map(|(field, text)| (field.name().to_owned(), text.into()));
    Value::Object(members.collect::<Map<_, _>>())
}
