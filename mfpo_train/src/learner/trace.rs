//! Intermediate results of an update by name, for the golden tests and for debugging; off in training.

use std::collections::BTreeMap;

use candle_core::Tensor;
use mfpo_policy::parameters::NetworkError;

/// Records numbers by name, or nothing.
#[derive(Debug, Default)]
pub struct Trace {
    values: Option<BTreeMap<String, Vec<f32>>>,
}

impl Trace {
    /// Records nothing.
    pub fn off() -> Self {
        Self::default()
    }

    /// Records everything.
    pub fn on() -> Self {
        Self {
            values: Some(BTreeMap::new()),
        }
    }

    /// Whether it records.
    pub fn is_on(&self) -> bool {
        self.values.is_some()
    }

    /// What was recorded.
    pub fn values(&self) -> impl Iterator<Item = (&String, &Vec<f32>)> {
        self.values.iter().flatten()
    }

    /// One recorded value.
    pub fn get(&self, name: &str) -> Option<&[f32]> {
        self.values.as_ref()?.get(name).map(Vec::as_slice)
    }

    pub(crate) fn slice(&mut self, name: &str, values: &[f32]) {
        if let Some(map) = &mut self.values {
            map.insert(name.to_owned(), values.to_vec());
        }
    }

    pub(crate) fn number(&mut self, name: &str, value: f64) {
        self.slice(name, &[value as f32]);
    }

    pub(crate) fn tensor(&mut self, name: &str, tensor: &Tensor) -> Result<(), NetworkError> {
        if let Some(map) = &mut self.values {
            map.insert(name.to_owned(), tensor.detach().flatten_all()?.to_vec1()?);
        }
        Ok(())
    }
}
