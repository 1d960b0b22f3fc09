//! The one way from an exchange to the log and the figures.
//!
//! Invariant: every record that is emitted is counted, and written unless the sink is stuck, which is counted too.

use std::sync::Arc;
use std::time::Duration;

use super::log::AccessLog;
use super::metrics::Metrics;
use super::record::Record;
use crate::clock::WallTime;
use crate::scrub::Redactor;

/// Takes records.
pub struct Recorder {
    log: AccessLog,
    metrics: Arc<Metrics>,
    redactor: Arc<Redactor>,
}

impl Recorder {
    /// Writes to `log` and counts in `metrics`.
    #[must_use]
    pub fn new(log: AccessLog, metrics: Arc<Metrics>, redactor: Arc<Redactor>) -> Self {
        Self { log, metrics, redactor }
    }

    /// Counts and writes one exchange. Never waits for a sink.
    pub fn emit(&self, record: Record) {
        self.metrics.count(&record);
        if !self.log.is_off() {
            self.log.add(&record.line(&self.redactor));
        }
    }

    /// The figures that the records feed.
    #[must_use]
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// What masks secrets in the lines.
    #[must_use]
    pub fn redactor(&self) -> &Arc<Redactor> {
        &self.redactor
    }

    /// The text of `/metrics`.
    #[must_use]
    pub fn render(&self, now: WallTime) -> String {
        self.metrics.set_lines_lost(self.log.lost());
        self.metrics.render(now)
    }

    /// How many access lines were lost.
    #[must_use]
    pub fn lines_lost(&self) -> u64 {
        self.log.lost()
    }

    /// Waits until every record emitted so far is written, at most for `limit` at each sink. Whether all were.
    pub fn flush(&self, limit: Duration) -> bool {
        self.log.flush(limit)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::super::record::tests::full;
    use super::*;

    #[test]
    fn one_record_feeds_the_log_and_the_figures() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.jsonl");
        let log = AccessLog::new().with_file(&path).unwrap();
        let recorder = Recorder::new(log, Metrics::new(), Arc::default());
        for _ in 0..3 {
            recorder.emit(full());
        }
        assert!(recorder.flush(Duration::from_secs(10)));
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 3);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let figures = recorder.render(WallTime(0));
        for expected in [
            "keyferry_requests_total{agent=\"coder\",provider=\"anthropic\",profile=\"anthropic:titanium\",status=\"200\"} 3",
            "keyferry_rotations_total{provider=\"anthropic\",from=\"anthropic:work\",to=\"anthropic:titanium\",reason=\"rate_limited\"} 3",
            "keyferry_upstream_attempts_total{provider=\"anthropic\",profile=\"anthropic:work\",outcome=\"rate_limited\"} 3",
            "keyferry_redactions_total{where=\"response\"} 3",
            "keyferry_request_duration_seconds_count{provider=\"anthropic\"} 3",
            "keyferry_time_to_first_byte_seconds_count{provider=\"anthropic\"} 3",
            "keyferry_overhead_seconds_count 3",
        ] {
            assert!(figures.lines().any(|line| line == expected), "{expected}\n{figures}");
        }
    }
}
