//! What commands print, and how they fail.

use std::io::Write as _;

/// Errors are one line.
pub type Result<T> = std::result::Result<T, String>;

/// Prints. A reader that has seen enough (head, less) is no failure; `false` says that there was
/// one.
pub fn print(text: &str) -> Result<bool> {
    let mut output = std::io::stdout();
    let printed = output
        .write_all(text.as_bytes())
        .and_then(|()| output.flush());
    match printed {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(format!("cannot write to standard output: {error}")),
    }
}
