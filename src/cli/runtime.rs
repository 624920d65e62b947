//! The runtime of the commands that serve or wait.

use tokio::runtime::Builder;

use super::failure::Failure;

/// Runs the work in the runtime of every command that serves. In `serve` it accepts connections and
/// hears signals, and workers do the rest.
///
/// The end does not wait for what blocks a thread of the runtime, such as looking up a name.
pub(super) fn block_on<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(Failure::Runtime)?;
    let result = runtime.block_on(work);
    runtime.shutdown_background();
    result
}
