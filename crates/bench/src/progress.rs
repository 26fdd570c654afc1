//! One line of progress for people: on stderr, and only if that is a terminal.

use std::{io::IsTerminal, time::Duration};

use indicatif::{ProgressBar, ProgressStyle};

/// Shows how far a run is, or nothing.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
}

impl Progress {
    /// A line that begins with `what`. Without a terminal nothing is shown.
    pub(crate) fn new(what: &str) -> Progress {
        if !std::io::stderr().is_terminal() {
            return Progress::hidden();
        }
        let bar = ProgressBar::new(0);
        let template = "{prefix} [{bar:30}] {percent:>3} % {msg}";
        // The template is a constant that parses; if it did not, indicatif's own would do.
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_prefix(what.to_owned());
        Progress { bar: Some(bar) }
    }

    /// Shows nothing.
    pub(crate) fn hidden() -> Progress {
        Progress { bar: None }
    }

    /// `done` of `total` pieces are done.
    pub(crate) fn count(&self, done: u64, total: u64) {
        if let Some(bar) = &self.bar {
            bar.set_length(total);
            bar.set_position(done);
        }
    }

    /// A window of `length` has run for `elapsed`.
    pub(crate) fn window(&self, elapsed: Duration, length: Duration, ops: u64, errors: u64) {
        let Some(bar) = &self.bar else { return };
        let rate = ops as f64 / elapsed.as_secs_f64().max(0.001);
        bar.set_length(length.as_millis() as u64);
        bar.set_position(elapsed.min(length).as_millis() as u64);
        bar.set_message(match errors {
            0 => format!("{rate:.0} ops/s"),
            errors => format!("{rate:.0} ops/s, {errors} errors"),
        });
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
