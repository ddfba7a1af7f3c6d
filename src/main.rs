//! The `hallpass` binary: everything it does stands in the library.

fn main() -> std::process::ExitCode {
    hallpass::cli::run()
}
