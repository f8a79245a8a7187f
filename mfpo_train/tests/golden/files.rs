//! Reads golden files and judges numbers by the tolerances beside them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use candle_core::Tensor;
use mfpo_policy::parameters::Parameters;

use crate::reference::device;

/// Error allowed, in units of the reference's own float32 error.
const FACTOR: f64 = 10.0;
/// Float32's relative rounding error: no tolerance is tighter than this share of the largest value.
const EPSILON: f64 = 1.2e-7;

/// The environment variable that names another folder.
pub const FOLDER: &str = "MFPO_GOLDEN_DIR";

fn folder() -> PathBuf {
    match std::env::var_os(FOLDER) {
        Some(folder) => folder.into(),
        None => PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/golden"),
    }
}

/// A JSON file of the folder, `None` where it is not there.
pub fn json(name: &str) -> Option<serde_json::Value> {
    let text = std::fs::read_to_string(folder().join(name)).ok()?;
    Some(serde_json::from_str(&text).unwrap_or_else(|e| panic!("{name} is not JSON: {e}")))
}

/// One safetensors file.
pub struct File {
    /// Name without ending.
    pub stem: String,
    tensors: BTreeMap<String, Tensor>,
}

impl File {
    /// Every safetensors file of the folder.
    pub fn all() -> Vec<Self> {
        let folder = folder();
        let entries = std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        let mut paths: Vec<PathBuf> = entries.map(|e| e.unwrap().path()).collect();
        paths.retain(|p| p.extension().is_some_and(|e| e == "safetensors"));
        paths.sort();
        assert!(
            !paths.is_empty(),
            "{} holds no .safetensors file",
            folder.display()
        );
        paths.iter().map(Self::read).collect()
    }

    fn read(path: &PathBuf) -> Self {
        let tensors = candle_core::safetensors::load(path, &device());
        let tensors = tensors.unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        Self {
            stem: path.file_stem().unwrap().to_string_lossy().into_owned(),
            tensors: tensors.into_iter().collect(),
        }
    }

    pub fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// Does the file hold any tensor whose name begins like this?
    pub fn holds(&self, prefix: &str) -> bool {
        self.tensors.keys().any(|name| name.starts_with(prefix))
    }

    /// The numbers that follow `prefix` in the names of tensors, for example the steps of `step3/out/alpha`.
    pub fn numbers_after(&self, prefix: &str) -> BTreeSet<usize> {
        let after = self.tensors.keys().filter_map(|name| name.strip_prefix(prefix));
        let digits =
            after.map(|rest| &rest[..rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len())]);
        digits.filter_map(|digits| digits.parse().ok()).collect()
    }

    pub fn names(&self) -> Vec<&str> {
        self.tensors.keys().map(String::as_str).collect()
    }

    pub fn tensor(&self, name: &str) -> Tensor {
        let tensor = self.tensors.get(name);
        tensor
            .unwrap_or_else(|| panic!("tensor '{name}' is missing from {}.safetensors", self.stem))
            .clone()
    }

    pub fn shape(&self, name: &str) -> Vec<usize> {
        self.tensor(name).dims().to_vec()
    }

    pub fn dims2(&self, name: &str) -> (usize, usize) {
        self.tensor(name)
            .dims2()
            .unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    pub fn values(&self, name: &str) -> Vec<f32> {
        self.tensor(name).flatten_all().unwrap().to_vec1().unwrap()
    }

    /// The tensors under `prefix/`.
    pub fn parameters(&self, prefix: &str) -> Parameters {
        let all = Parameters::new(self.tensors.clone());
        let found = all.under(prefix);
        assert!(
            found.iter().next().is_some(),
            "no tensor under '{prefix}/' in {}.safetensors",
            self.stem
        );
        found
    }
}

/// Compares, counts, and remembers what was wrong.
pub struct Judge {
    what: &'static str,
    /// The tolerances are multiplied by it.
    pub slack: f64,
    tolerances: serde_json::Value,
    compared: usize,
    errors: Vec<String>,
    worst: (f64, String),
}

impl Judge {
    pub fn new(what: &'static str) -> Self {
        Self {
            what,
            slack: 1.0,
            tolerances: json("tolerance.json").unwrap_or(serde_json::Value::Null),
            compared: 0,
            errors: Vec::new(),
            worst: (0.0, String::new()),
        }
    }

    /// The tolerance entry of `key`: of the file's own case, else of `small_perturbed`.
    fn entry(&self, file: &File, key: &str, field: &str) -> Option<f64> {
        [file.stem.as_str(), "small_perturbed", "small_fresh"]
            .iter()
            .find_map(|case| self.tolerances.get(case)?.get(key)?.get(field)?.as_f64())
    }

    /// Ten times the reference's float32 error, and never tighter than float32 itself.
    fn tolerance(&self, file: &File, key: &str, scale: f64) -> f64 {
        let recorded = self.entry(file, key, "max_abs").unwrap_or(0.0);
        FACTOR * recorded.max(EPSILON * scale.max(1e-3))
    }

    fn judge(&mut self, file: &File, name: &str, error: f64, tolerance: f64) {
        let tolerance = self.slack * tolerance;
        let ratio = error / tolerance;
        if ratio > self.worst.0 {
            self.worst = (ratio, format!("{}:{name}", file.stem));
        }
        if error > tolerance || error.is_nan() {
            self.errors.push(format!(
                "{}:{name}: off by {error:.3e}, allowed {tolerance:.3e}",
                file.stem
            ));
        }
    }

    /// Element by element, by the absolute tolerance of `key`.
    pub fn compare(&mut self, file: &File, name: &str, ours: &[f32], key: &str) {
        let Some((error, scale)) = self.difference(file, name, ours) else {
            return;
        };
        let tolerance = self.tolerance(file, key, scale);
        self.judge(file, name, error, tolerance);
    }

    /// Element by element, relative to the tensor's largest value.
    pub fn relative(&mut self, file: &File, name: &str, ours: &[f32], key: &str) {
        let Some((error, scale)) = self.difference(file, name, ours) else {
            return;
        };
        let allowed = self.entry(file, key, "worst_rel_to_tensor_max").unwrap_or(1e-6);
        self.judge(
            file,
            name,
            error,
            FACTOR * allowed.max(EPSILON) * scale.max(1e-12),
        );
    }

    /// Parameters after Adam: the first step is nearly the sign of the gradient, so that an element whose gradient is
    /// rounding noise may differ by the whole step; 99 % must be within the tolerance of the quantile.
    pub fn quantiles(&mut self, file: &File, name: &str, ours: &[f32], key: &str) {
        if self.difference(file, name, ours).is_none() {
            return;
        }
        let want = file.values(name);
        let mut errors: Vec<f64> = ours
            .iter()
            .zip(&want)
            .map(|(a, b)| f64::from((a - b).abs()))
            .collect();
        errors.sort_by(f64::total_cmp);
        let q99 = errors[(errors.len() - 1) * 99 / 100];
        let scale = want.iter().fold(0f64, |m, v| m.max(f64::from(v.abs())));
        let allowed = self
            .entry(file, key, "q99_abs")
            .unwrap_or(0.0)
            .max(EPSILON * scale);
        self.judge(file, name, q99, FACTOR * allowed);
        self.judge(
            file,
            name,
            errors[errors.len() - 1],
            2.0 * 3e-4 + FACTOR * allowed,
        );
    }

    pub fn number(&mut self, file: &File, name: &str, ours: f64, want: f64, key: &str) {
        self.compared += 1;
        let tolerance = self.tolerance(file, key, want.abs());
        self.judge(file, name, (ours - want).abs(), tolerance);
    }

    /// The file is of a kind that holds this tensor.
    pub fn require(&mut self, file: &File, name: &str) {
        if !file.has(name) {
            self.errors.push(format!(
                "tensor '{name}' is missing from {}.safetensors",
                file.stem
            ));
        }
    }

    pub fn missing(&mut self, file: &File, name: &str) {
        self.errors
            .push(format!("{}:{name}: we record no tensor of this name", file.stem));
    }

    /// Largest absolute difference and largest absolute value; `None` (and an error) where there is nothing to compare.
    fn difference(&mut self, file: &File, name: &str, ours: &[f32]) -> Option<(f64, f64)> {
        if !file.has(name) {
            self.errors.push(format!(
                "tensor '{name}' is missing from {}.safetensors",
                file.stem
            ));
            return None;
        }
        let want = file.values(name);
        if want.len() != ours.len() {
            self.errors.push(format!(
                "{}:{name}: {} numbers, expected {}",
                file.stem,
                ours.len(),
                want.len()
            ));
            return None;
        }
        self.compared += 1;
        let pairs = || {
            ours.iter()
                .zip(&want)
                .map(|(a, b)| (f64::from(*a), f64::from(*b)))
        };
        let error = pairs()
            .map(|(a, b)| (a - b).abs())
            .fold(0.0, |m: f64, e| if e > m || e.is_nan() { e } else { m });
        Some((error, pairs().map(|(_, b)| b.abs()).fold(0.0, f64::max)))
    }

    /// Prints the count and fails with every error.
    pub fn finish(self) {
        println!(
            "{}: {} tensors compared; worst {:.2} of the tolerance ({})",
            self.what, self.compared, self.worst.0, self.worst.1
        );
        assert!(
            self.errors.is_empty(),
            "{} of {} failed:\n{}",
            self.errors.len(),
            self.what,
            self.errors.join("\n")
        );
    }
}
