//! What a person sees while the set-up works: a line for each step, with a bar on a terminal.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// One step that is under way.
pub struct Step {
    bar: ProgressBar,
    title: String,
    start: Instant,
}

impl Step {
    /// Begins a step of `length` parts (0: unknown).
    pub fn begin(title: impl Into<String>, length: u64) -> Self {
        let title = title.into();
        if !std::io::stderr().is_terminal() {
            eprintln!("{title} ...");
        }
        let bar = ProgressBar::new(length);
        bar.set_style(style(length > 0));
        bar.set_prefix(title.clone());
        bar.enable_steady_tick(Duration::from_millis(100));
        Self {
            bar,
            title,
            start: Instant::now(),
        }
    }

    /// One part is done; `what` comes next.
    pub fn advance(&self, what: impl Into<String>) {
        self.bar.inc(1);
        self.bar.set_message(what.into());
    }

    /// Says what is being done.
    pub fn say(&self, what: impl Into<String>) {
        self.bar.set_message(what.into());
    }

    /// Ends the step.
    pub fn done(self) {
        self.bar.finish_and_clear();
        eprintln!(
            "{}: done in {:.1} s",
            self.title,
            self.start.elapsed().as_secs_f64()
        );
    }
}

fn style(has_length: bool) -> ProgressStyle {
    let template = if has_length {
        "{spinner} {prefix} [{bar:24}] {pos}/{len} {wide_msg}"
    } else {
        "{spinner} {prefix} {elapsed} {wide_msg}"
    };
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}
