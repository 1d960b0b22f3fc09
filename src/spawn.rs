//! The one way to start a task, so that a drain can wait for every one of them.
//!
//! Invariant: nothing else in the crate calls `tokio::spawn`.

use std::future::Future;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Starts tasks and knows when all of them have ended.
#[derive(Clone, Debug, Default)]
pub struct Spawner {
    tracker: TaskTracker,
    stopping: CancellationToken,
}

impl Spawner {
    /// Runs `task` on the current runtime.
    #[allow(clippy::disallowed_methods, reason = "the tracked spawner itself")]
    pub fn spawn<F>(&self, task: F) -> tokio::task::JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.tracker.spawn(task)
    }

    /// Becomes ready when [`Spawner::stop`] was called.
    pub async fn stopping(&self) {
        self.stopping.cancelled().await;
    }

    /// Whether [`Spawner::stop`] was called.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.stopping.is_cancelled()
    }

    /// Asks every task that listens to end.
    pub fn stop(&self) {
        self.stopping.cancel();
    }

    /// Waits until all tasks have ended. Bound it with a timeout.
    pub async fn ended(&self) {
        self.tracker.close();
        self.tracker.wait().await;
    }
}

/// hyper's HTTP/2 halves start their tasks here.
impl<F> hyper::rt::Executor<F> for Spawner
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, task: F) {
        drop(self.spawn(task));
    }
}
