//! What takes the place of a recording in a program that was built without the renderer.

use std::path::Path;

use anyhow::bail;
use mfpo_sim::Env;

use super::FilmSize;
use crate::evaluate::Onlooker;

/// A film that is never made.
pub enum Recording {}

impl Recording {
    /// Always refuses, and says which feature is missing.
    ///
    /// # Errors
    /// Always.
    pub fn check(_: FilmSize, _: &mut dyn Env) -> anyhow::Result<()> {
        bail!("this mfpo_train was built without films; build it with the feature `renderer` to use --video")
    }

    /// As [`Recording::check`].
    ///
    /// # Errors
    /// Always.
    pub fn start(_: &Path, size: FilmSize, env: &mut dyn Env) -> anyhow::Result<Self> {
        match Self::check(size, env) {
            Err(error) => Err(error),
            Ok(()) => bail!("there is no renderer"),
        }
    }

    /// Never.
    ///
    /// # Errors
    /// Never.
    pub fn finish(self) -> anyhow::Result<()> {
        match self {}
    }
}

impl Onlooker for Recording {
    fn look(&mut self, _: u64, _: u64, _: &mut dyn Env) {
        match *self {}
    }
}
