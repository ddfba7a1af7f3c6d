//! The threads that connections live on. A store has its own: it is opened by commands that have no runtime as well as
//! within one, and the ledger's turns must not wait behind whatever else a broker does.

use std::{sync::mpsc, time::Duration};

use tokio::runtime::{Builder, Handle, Runtime};

use super::open::OpenFault;

/// A runtime that may be dropped anywhere.
pub(super) struct Engine(Option<Runtime>, Handle);

/// How long opening may take, beyond what the database itself allows.
const OPEN_DEADLINE: Duration = Duration::from_secs(10);

impl Engine {
    /// Starts its threads.
    pub(super) fn start() -> Result<Self, OpenFault> {
        let runtime =
            Builder::new_multi_thread().worker_threads(2).thread_name("ledger").enable_all().build();
        let runtime = runtime.map_err(OpenFault::Thread)?;
        let handle = runtime.handle().clone();
        Ok(Self(Some(runtime), handle))
    }

    /// Where its tasks run.
    pub(super) fn handle(&self) -> &Handle {
        &self.1
    }

    /// Runs to the end and blocks until then, as opening a file does.
    pub(super) fn wait<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, OpenFault> {
        self.wait_for(OPEN_DEADLINE, work)
    }

    /// The same for what takes longer.
    pub(super) fn wait_for<T: Send + 'static>(
        &self,
        deadline: Duration,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, OpenFault> {
        let (told, hears) = mpsc::sync_channel(1);
        self.1.spawn(async move {
            // Whoever waited has given up.
            drop(told.send(work.await));
        });
        hears.recv_timeout(deadline).map_err(|_| OpenFault::Slow)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
