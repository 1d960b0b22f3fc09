//! Brings records to the disk, many with one call: a thread of its own forces the file while the next records gather.
//!
//! Invariant: whoever waits is answered for the very file that the record was written to, and only by a call that
//! began after the record was written; a disk that does not answer keeps nobody longer than [`PATIENCE`].

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

/// An agent is refused within 250 ms (FA-13); what the rest of the exchange takes has its share.
pub(super) const PATIENCE: Duration = Duration::from_millis(200);

/// Exchanges that may wait for the disk at once: the most open connections.
const MOST_WAITING: usize = 16_384;

/// The handle of the thread, which ends when the handle is dropped.
pub(super) struct Committer {
    queue: Arc<Queue>,
}

#[derive(Default)]
struct Queue {
    state: Mutex<State>,
    work: Condvar,
}

#[derive(Default)]
struct State {
    waiting: Vec<Waiting>,
    closed: bool,
}

struct Waiting {
    file: Arc<File>,
    answer: oneshot::Sender<io::Result<()>>,
}

impl Committer {
    /// Starts the thread.
    pub(super) fn start() -> io::Result<Self> {
        Self::with(|file| file.sync_data())
    }

    fn with(sync: impl Fn(&File) -> io::Result<()> + Send + 'static) -> io::Result<Self> {
        let queue = Arc::<Queue>::default();
        let theirs = Arc::clone(&queue);
        std::thread::Builder::new().name("audit-sync".to_owned()).spawn(move || theirs.run(sync))?;
        Ok(Self { queue })
    }

    /// Waits until everything that was written to `file` before is on the disk.
    pub(super) async fn settled(&self, file: Arc<File>) -> io::Result<()> {
        let (answer, answered) = oneshot::channel();
        {
            let mut state = self.queue.state.lock();
            // Those who gave up waiting make room.
            if state.waiting.len() >= MOST_WAITING {
                state.waiting.retain(|waiting| !waiting.answer.is_closed());
            }
            if state.waiting.len() >= MOST_WAITING {
                return Err(io::Error::new(io::ErrorKind::WouldBlock, "too many records wait for the disk"));
            }
            state.waiting.push(Waiting { file, answer });
        }
        self.queue.work.notify_one();
        let late = |_| io::Error::new(io::ErrorKind::TimedOut, "the disk does not answer");
        let gone = |_| io::Error::other("nobody brings records to the disk any more");
        tokio::time::timeout(PATIENCE, answered).await.map_err(late)?.map_err(gone)?
    }
}

impl Drop for Committer {
    fn drop(&mut self) {
        self.queue.state.lock().closed = true;
        self.queue.work.notify_one();
    }
}

impl Queue {
    fn run(&self, sync: impl Fn(&File) -> io::Result<()>) {
        loop {
            let mut batch = {
                let mut state = self.state.lock();
                while state.waiting.is_empty() {
                    if state.closed {
                        return;
                    }
                    self.work.wait(&mut state);
                }
                std::mem::take(&mut state.waiting)
            };
            // Nearly always one file; another one only while a log is being replaced.
            while let Some(first) = batch.last().map(|waiting| Arc::clone(&waiting.file)) {
                let result = sync(&first);
                let (same, others) = batch.into_iter().partition(|waiting| Arc::ptr_eq(&waiting.file, &first));
                batch = others;
                let same: Vec<Waiting> = same;
                for waiting in same {
                    // Whoever gave up waiting does not need the answer.
                    let _ = waiting.answer.send(match &result {
                        Ok(()) => Ok(()),
                        Err(error) => Err(error.kind().into()),
                    });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use super::*;

    fn file() -> Arc<File> {
        Arc::new(tempfile::tempfile().unwrap())
    }

    #[tokio::test]
    async fn many_records_come_to_the_disk_with_one_call() {
        let (calls, (started, starts), (release, released)) =
            (Arc::<AtomicUsize>::default(), mpsc::channel(), mpsc::channel::<()>());
        let counted = Arc::clone(&calls);
        let committer = Arc::new(
            Committer::with(move |_| {
                counted.fetch_add(1, Ordering::SeqCst);
                let _ = started.send(());
                let _ = released.recv();
                Ok(())
            })
            .unwrap(),
        );
        let file = file();
        let one = || {
            let (committer, file) = (Arc::clone(&committer), Arc::clone(&file));
            async move { committer.settled(file).await }
        };
        let mut first = Box::pin(one());
        assert!(futures_util::poll!(first.as_mut()).is_pending());
        starts.recv().unwrap();
        // These come while the first call is under way, so it does not count for them.
        let mut more: Vec<_> = (0..50).map(|_| Box::pin(one())).collect();
        for waiting in &mut more {
            assert!(futures_util::poll!(waiting.as_mut()).is_pending());
        }
        release.send(()).unwrap();
        first.await.unwrap();
        starts.recv().unwrap();
        assert!(futures_util::poll!(more[0].as_mut()).is_pending());
        release.send(()).unwrap();
        for waiting in more {
            waiting.await.unwrap();
        }
        assert_eq!(calls.load(Ordering::SeqCst), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_disk_that_does_not_answer_keeps_nobody_and_recovers() {
        // FA-13
        let (release, released) = mpsc::channel::<()>();
        let committer = Committer::with(move |_| {
            let _ = released.recv();
            Ok(())
        })
        .unwrap();
        let begun = tokio::time::Instant::now();
        for _ in 0..3 {
            let fault = committer.settled(file()).await.unwrap_err();
            assert_eq!(fault.kind(), io::ErrorKind::TimedOut);
        }
        assert_eq!(begun.elapsed(), 3 * PATIENCE);
        drop(release);
        tokio::time::resume();
        while committer.settled(file()).await.is_err() {}
    }

    #[tokio::test]
    async fn a_disk_that_refuses_is_an_error_for_its_own_file_only() {
        // FA-13
        let (good, bad) = (file(), file());
        let broken = Arc::clone(&bad);
        let same = move |file: &File| std::ptr::eq(file, &*broken);
        let committer =
            Committer::with(move |file| if same(file) { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) })
                .unwrap();
        let (one, other) = tokio::join!(committer.settled(bad), committer.settled(good));
        assert_eq!(one.unwrap_err().kind(), io::ErrorKind::StorageFull);
        other.unwrap();
    }
}
