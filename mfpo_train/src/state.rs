//! Named arrays of numbers: what a learner, a buffer or a generator needs to go on bit by bit.
//!
//! A part of the program gives its state with arrays that borrow from it (a replay buffer is not copied), the parts are
//! nested under their names, and `checkpoint.rs` writes the whole. Reading takes the arrays out by name, each with the length
//! that the part expects.

use std::borrow::Cow;
use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};
use mfpo_policy::parameters::Parameters;
use rand::SeedableRng;
use rand_chacha::{ChaCha8Rng, ChaCha12Rng};
use thiserror::Error;

/// Why a state does not fit.
#[derive(Debug, Error)]
pub enum StateError {
    /// An array is not there.
    #[error("it holds no array '{0}'")]
    Missing(String),
    /// An array has another length or kind.
    #[error("its array '{name}' holds {got}; expected {expected}")]
    Mismatch {
        /// The array.
        name: String,
        /// What was expected.
        expected: String,
        /// What came.
        got: String,
    },
    /// A tensor could not be made or read.
    #[error("a tensor could not be copied: {0}")]
    Tensor(#[from] candle_core::Error),
}

/// Numbers of one kind.
#[derive(Debug, Clone, PartialEq)]
pub enum Numbers<'a> {
    /// Single precision.
    F32(Cow<'a, [f32]>),
    /// Double precision.
    F64(Cow<'a, [f64]>),
    /// Counters and generators.
    U64(Cow<'a, [u64]>),
}

impl Numbers<'_> {
    /// How many.
    pub fn len(&self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::F64(values) => values.len(),
            Self::U64(values) => values.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::F32(_) => "f32",
            Self::F64(_) => "f64",
            Self::U64(_) => "u64",
        }
    }
}

impl<'a> From<&'a [f32]> for Numbers<'a> {
    fn from(values: &'a [f32]) -> Self {
        Self::F32(values.into())
    }
}

impl From<Vec<f32>> for Numbers<'_> {
    fn from(values: Vec<f32>) -> Self {
        Self::F32(values.into())
    }
}

impl<'a> From<&'a [f64]> for Numbers<'a> {
    fn from(values: &'a [f64]) -> Self {
        Self::F64(values.into())
    }
}

impl From<Vec<f64>> for Numbers<'_> {
    fn from(values: Vec<f64>) -> Self {
        Self::F64(values.into())
    }
}

impl From<Vec<u64>> for Numbers<'_> {
    fn from(values: Vec<u64>) -> Self {
        Self::U64(values.into())
    }
}

/// Arrays by name.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct State<'a> {
    arrays: BTreeMap<String, Numbers<'a>>,
}

impl<'a> State<'a> {
    /// Adds an array.
    pub fn put(&mut self, name: &str, values: impl Into<Numbers<'a>>) {
        self.arrays.insert(name.to_owned(), values.into());
    }

    /// Adds all arrays of a part under the part's name.
    pub fn nest(&mut self, part: &str, state: State<'a>) {
        let renamed = state
            .arrays
            .into_iter()
            .map(|(name, values)| (format!("{part}/{name}"), values));
        self.arrays.extend(renamed);
    }

    /// Adds the parameters of a network as `name/<parameter>`.
    ///
    /// # Errors
    /// When they cannot be read from their device.
    pub fn put_parameters(&mut self, name: &str, parameters: &Parameters) -> Result<(), StateError> {
        for (parameter, tensor) in parameters.iter() {
            self.put(&format!("{name}/{parameter}"), flat(tensor)?);
        }
        Ok(())
    }

    /// All arrays, in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&String, &Numbers<'a>)> {
        self.arrays.iter()
    }

    /// The first array that holds a number that is not finite.
    pub fn first_not_finite(&self) -> Option<&str> {
        let finite = |values: &Numbers<'_>| match values {
            Numbers::F32(values) => values.iter().all(|v| v.is_finite()),
            Numbers::F64(values) => values.iter().all(|v| v.is_finite()),
            Numbers::U64(_) => true,
        };
        let found = self.arrays.iter().find(|(_, values)| !finite(values));
        found.map(|(name, _)| name.as_str())
    }

    /// Takes out the arrays of a part.
    pub fn take_part(&mut self, part: &str) -> State<'a> {
        let prefix = format!("{part}/");
        let of_part = |name: &String| name.starts_with(&prefix);
        let names: Vec<String> = self.arrays.keys().filter(|name| of_part(name)).cloned().collect();
        let moved = names.into_iter().filter_map(|name| {
            let values = self.arrays.remove(&name)?;
            Some((name[prefix.len()..].to_owned(), values))
        });
        State {
            arrays: moved.collect(),
        }
    }

    /// Takes out an array of any length.
    ///
    /// # Errors
    /// [`StateError::Missing`], [`StateError::Mismatch`] for another kind of numbers.
    pub fn take_f32(&mut self, name: &str) -> Result<Vec<f32>, StateError> {
        match self.take(name)? {
            Numbers::F32(values) => Ok(values.into_owned()),
            other => Err(mismatch(name, "f32 numbers", &other)),
        }
    }

    /// As [`State::take_f32`].
    ///
    /// # Errors
    /// As [`State::take_f32`].
    pub fn take_f64(&mut self, name: &str) -> Result<Vec<f64>, StateError> {
        match self.take(name)? {
            Numbers::F64(values) => Ok(values.into_owned()),
            other => Err(mismatch(name, "f64 numbers", &other)),
        }
    }

    /// Takes out an array of `N` whole numbers.
    ///
    /// # Errors
    /// As [`State::take_f32`], and for another length.
    pub fn take_u64<const N: usize>(&mut self, name: &str) -> Result<[u64; N], StateError> {
        let numbers = self.take(name)?;
        if let Numbers::U64(values) = &numbers
            && let Ok(values) = <[u64; N]>::try_from(&values[..])
        {
            return Ok(values);
        }
        Err(mismatch(name, &format!("{N} u64 numbers"), &numbers))
    }

    /// Takes out an array of `expected` numbers.
    ///
    /// # Errors
    /// As [`State::take_f32`], and for another length.
    pub fn take_f32_of(&mut self, name: &str, expected: usize) -> Result<Vec<f32>, StateError> {
        let values = self.take_f32(name)?;
        check_length(name, expected, values.len())?;
        Ok(values)
    }

    /// As [`State::take_f32_of`].
    ///
    /// # Errors
    /// As [`State::take_f32_of`].
    pub fn take_f64_of(&mut self, name: &str, expected: usize) -> Result<Vec<f64>, StateError> {
        let values = self.take_f64(name)?;
        check_length(name, expected, values.len())?;
        Ok(values)
    }

    /// Takes out the parameters of a network that has the names and shapes of `like`.
    ///
    /// # Errors
    /// When one is missing or has another size.
    pub fn take_parameters(&mut self, name: &str, like: &Parameters) -> Result<Parameters, StateError> {
        let mut tensors = BTreeMap::new();
        for (parameter, tensor) in like.iter() {
            let values = self.take_f32_of(&format!("{name}/{parameter}"), tensor.elem_count())?;
            let tensor = Tensor::from_vec(values, tensor.shape(), &Device::Cpu)?;
            tensors.insert(parameter.clone(), tensor);
        }
        Ok(Parameters::new(tensors))
    }

    fn take(&mut self, name: &str) -> Result<Numbers<'a>, StateError> {
        self.arrays
            .remove(name)
            .ok_or_else(|| StateError::Missing(name.to_owned()))
    }
}

fn mismatch(name: &str, expected: &str, got: &Numbers<'_>) -> StateError {
    StateError::Mismatch {
        name: name.to_owned(),
        expected: expected.to_owned(),
        got: format!("{} {} numbers", got.len(), got.kind()),
    }
}

fn check_length(name: &str, expected: usize, got: usize) -> Result<(), StateError> {
    if expected == got {
        return Ok(());
    }
    Err(StateError::Mismatch {
        name: name.to_owned(),
        expected: format!("{expected} numbers"),
        got: format!("{got}"),
    })
}

/// The numbers of a tensor.
pub(crate) fn flat(tensor: &Tensor) -> candle_core::Result<Vec<f32>> {
    tensor.flatten_all()?.to_dtype(DType::F32)?.to_vec1()
}

/// A generator that can be put down and taken up in the middle of its sequence.
pub trait Generator: SeedableRng {
    /// Key, stream and place in the stream.
    fn position(&self) -> Vec<u64>;

    /// The generator at a place.
    fn at(position: [u64; 7]) -> Self;
}

macro_rules! generator {
    ($name:ty) => {
        impl Generator for $name {
            fn position(&self) -> Vec<u64> {
                let (seed, place) = (self.get_seed(), self.get_word_pos());
                let mut words: Vec<u64> = seed
                    .chunks_exact(8)
                    .map(|bytes| {
                        bytes
                            .iter()
                            .rev()
                            .fold(0, |word, byte| word << 8 | u64::from(*byte))
                    })
                    .collect();
                words.extend([self.get_stream(), place as u64, (place >> 64) as u64]);
                words
            }

            fn at([a, b, c, d, stream, low, high]: [u64; 7]) -> Self {
                let mut seed = [0; 32];
                for (bytes, word) in seed.chunks_exact_mut(8).zip([a, b, c, d]) {
                    bytes.copy_from_slice(&word.to_le_bytes());
                }
                let mut generator = Self::from_seed(seed);
                generator.set_stream(stream);
                generator.set_word_pos(u128::from(high) << 64 | u128::from(low));
                generator
            }
        }
    };
}

generator!(ChaCha8Rng);
generator!(ChaCha12Rng);

#[cfg(test)]
mod tests {
    use rand::Rng;

    use super::*;

    #[test]
    fn a_generator_goes_on_where_it_was_put_down() {
        for taken in [0, 1, 3, 15, 16, 63, 64, 65, 1000] {
            let mut one = ChaCha8Rng::seed_from_u64(7);
            one.set_stream(3);
            (0..taken).for_each(|_| {
                one.next_u32();
            });
            let position = one.position();
            let mut other = ChaCha8Rng::at(position.try_into().unwrap());
            for _ in 0..100 {
                assert_eq!(one.next_u64(), other.next_u64(), "after {taken} numbers");
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let mut inner = State::default();
        inner.put("rewards", vec![1.0f64, 2.0]);
        let mut state = State::default();
        state.nest("replay", inner);
        let mut part = state.clone().take_part("replay");
        assert_eq!(part.take_f64("rewards").unwrap(), [1.0, 2.0]);
        let text = part.take_f64("rewards").unwrap_err().to_string();
        assert_eq!(text, "it holds no array 'rewards'");
        let text = state.take_f64_of("replay/rewards", 3).unwrap_err().to_string();
        assert_eq!(text, "its array 'replay/rewards' holds 2; expected 3 numbers");
        state.put("step", vec![0.5f32]);
        let text = state.take_u64::<1>("step").unwrap_err().to_string();
        assert_eq!(
            text,
            "its array 'step' holds 1 f32 numbers; expected 1 u64 numbers"
        );
    }

    #[test]
    fn the_first_array_that_is_not_finite_is_found() {
        let mut state = State::default();
        state.put("a", vec![1.0f32]);
        assert_eq!(state.first_not_finite(), None);
        state.put("c", vec![f64::INFINITY]);
        state.put("b", vec![0.0, f32::NAN]);
        assert_eq!(state.first_not_finite(), Some("b"));
    }
}
