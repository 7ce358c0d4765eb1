//! Results go to standard output, failures to standard error; a closed pipe (`isle scan | head`) ends the command
//! quietly.

use std::io::{self, Write as _};
use std::process::ExitCode;

/// Exit code of `isle get` where the key is absent.
pub(crate) const EXIT_ABSENT: u8 = 5;

/// Why a command failed.
#[derive(Debug)]
pub(crate) struct Failure {
    exit: u8,
    message: String,
}

impl Failure {
    /// A failure with exit code 1.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { exit: 1, message: message.into() }
    }

    /// A failure of what the user asked for, with exit code 2.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self { exit: 2, message: message.into() }
    }

    /// A failure with this exit code.
    pub(crate) fn with_exit(exit: u8, message: impl Into<String>) -> Self {
        Self { exit, message: message.into() }
    }

    /// The end of a command whose reader has gone away.
    fn silent() -> Self {
        Self { exit: 0, message: String::new() }
    }
}

impl<E: std::error::Error> From<E> for Failure {
    fn from(e: E) -> Self {
        Self::new(e.to_string())
    }
}

/// Prints a failure and gives its exit code.
pub(crate) fn report(failure: &Failure) -> ExitCode {
    if !failure.message.is_empty() {
        // Where standard error is closed there is nobody to tell.
        let _nobody = writeln!(io::stderr(), "error: {}", failure.message);
    }
    ExitCode::from(failure.exit)
}

/// Writes bytes to standard output.
pub(crate) fn write(bytes: &[u8]) -> Result<(), Failure> {
    match io::stdout().write_all(bytes).and_then(|()| io::stdout().flush()) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Err(Failure::silent()),
        Err(e) => Err(Failure::new(format!("standard output: {e}"))),
    }
}

/// Writes a line to standard output.
pub(crate) fn line(text: &str) -> Result<(), Failure> {
    write(format!("{text}\n").as_bytes())
}

/// Writes a line to standard error.
pub(crate) fn note(text: &str) {
    let _nobody = writeln!(io::stderr(), "{text}");
}
