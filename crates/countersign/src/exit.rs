//! How a command ends, for scripts. The numbers are part of the interface and documented in `--help` and `docs/cli.md`.
use std::process::ExitCode;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// All is as it should be.
    Good,
    /// The thing that was checked is not as it should be: problems found, a test failed, a token not accepted.
    Bad,
    /// The command line or a configuration file is wrong, so nothing could be checked.
    Usage,
    /// Something that was needed could not be reached: a running countersign, a file, an issuer.
    Unreachable,
}

impl Exit {
    pub const fn code(self) -> u8 {
        match self {
            Exit::Good => 0,
            Exit::Bad => 1,
            Exit::Usage => 2,
            Exit::Unreachable => 3,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit.code())
    }
}
