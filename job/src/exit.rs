//! Exit codes of the transcoder task.

use strum::VariantArray;

/// The end of a transcoder task. The codes are those of BSD's `sysexits.h`, or the shell's 128 + signal.
/// `docs/OPERATIONS.md` describes the consumer's reaction to each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, VariantArray)]
pub enum Exit {
    /// The stream is published and its report is complete.
    Done,
    /// The input is not a usable video, so a retry cannot help (`EX_DATAERR`).
    Unusable,
    /// The source object is gone or was replaced (`EX_NOINPUT`).
    Obsolete,
    /// A bug in the task or in FFmpeg (`EX_SOFTWARE`).
    Internal,
    /// A temporary failure of S3, network or disk (`EX_TEMPFAIL`).
    Transient,
    /// A wrong setting or a missing permission; every job would fail (`EX_CONFIG`).
    Misconfigured,
    /// The kernel killed FFmpeg for lack of memory (128 + 9); a larger task may succeed. If the kernel
    /// kills the task itself, ECS reports the same code.
    OutOfMemory,
    /// SIGTERM: Spot interruption, StopTask, host retirement (128 + 15).
    Terminated,
}

impl Exit {
    /// The process exit code.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Unusable => 65,
            Self::Obsolete => 66,
            Self::Internal => 70,
            Self::Transient => 75,
            Self::Misconfigured => 78,
            Self::OutOfMemory => 137,
            Self::Terminated => 143,
        }
    }

    /// Parses a container's exit code; `None` for other codes, such as 1 (failed start) or 101 (panic).
    #[must_use]
    pub fn from_code(code: i32) -> Option<Self> {
        Self::VARIANTS.iter().copied().find(|exit| i32::from(exit.code()) == code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_round_trip_and_other_codes_are_none() {
        for &exit in Exit::VARIANTS {
            assert_eq!(Exit::from_code(exit.code().into()), Some(exit));
        }
        for code in [1, 101, 139, -1] {
            assert_eq!(Exit::from_code(code), None);
        }
    }
}
