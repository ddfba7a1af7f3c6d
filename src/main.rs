//! The `hallpass` binary: everything it does stands in the library.

/// Wipes whatever is freed, so that no copy of a secret outlives its use (promise P5).
#[global_allocator]
static ALLOCATOR: hallpass::cli::allocator::Wiping = hallpass::cli::allocator::Wiping;

fn main() -> std::process::ExitCode {
    hallpass::cli::run()
}
