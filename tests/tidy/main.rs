//! Rules for sources, documents and scripts that no compiler checks. Does not link the library.

#[cfg(unix)]
mod bare_machine;
mod documents;
mod log_manual;
mod prose;
mod rooms;
mod settings;
mod sources;
mod symptoms;
