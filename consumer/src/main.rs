//! Starts one ECS task per uploaded video and follows it to its end.

use std::process::ExitCode;

fn main() -> ExitCode {
    vidstreamx_consumer::cli::main()
}
