//! Figures as they are printed, and the machine that they are of.

use hdrhistogram::Histogram;
use serde_json::{Value, json};

/// The first line of a table of [`Figures`].
pub const HEAD: &str =
    "                                             samples      p50      p99    p99.9      max";

/// Percentiles of one quantity, us.
#[derive(Debug, Clone, Copy)]
pub struct Figures {
    /// Number of values.
    pub samples: u64,
    /// Median.
    pub p50: f64,
    /// 99th percentile.
    pub p99: f64,
    /// 99.9th percentile.
    pub p999: f64,
    /// The largest.
    pub max: f64,
}

/// A duration in us.
pub fn microseconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 * 1e-3
}

impl Figures {
    /// Of a histogram in ns.
    pub fn of(histogram: &Histogram<u64>) -> Self {
        let at = |quantile| microseconds(histogram.value_at_quantile(quantile));
        Self {
            samples: histogram.len(),
            p50: at(0.5),
            p99: at(0.99),
            p999: at(0.999),
            max: microseconds(histogram.max()),
        }
    }

    /// One line of the table.
    pub fn row(&self, name: &str) -> String {
        let Self {
            samples,
            p50,
            p99,
            p999,
            max,
        } = self;
        format!("{name:<42} {samples:>9} {p50:>8.1} {p99:>8.1} {p999:>8.1} {max:>8.1}")
    }

    /// With the names of the JSON line.
    pub fn json(&self) -> Value {
        json!({
            "samples": self.samples, "p50_us": self.p50, "p99_us": self.p99, "p999_us": self.p999,
            "max_us": self.max,
        })
    }
}

/// Processor, number of cores, kernel, load.
pub fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("unknown processor", |(_, model)| model);
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = read("/proc/sys/kernel/osrelease");
    let load = read("/proc/loadavg");
    format!(
        "{model}, {cores} cores, Linux {}, load {}",
        kernel.trim(),
        load.split(' ').next().unwrap_or_default()
    )
}
