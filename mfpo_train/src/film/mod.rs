//! Films of episodes: MP4 files with H.264, which every player and browser opens, in real time.
//!
//! Pictures are drawn off-screen while an episode is measured, so that a film shows that very episode; nothing that is
//! measured or learnt depends on it. Needs the cargo feature `renderer` (on by default), and EGL when it runs.

use std::fmt::{Display, Formatter};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::Context;
use mfpo_sim::Env;

use crate::evaluate::Onlooker;

#[cfg(feature = "renderer")]
mod mp4;
#[cfg(feature = "renderer")]
mod recording;
#[cfg(not(feature = "renderer"))]
mod unavailable;

#[cfg(feature = "renderer")]
pub use recording::Recording;
#[cfg(not(feature = "renderer"))]
pub use unavailable::Recording;

/// The encoder's largest pictures.
const LARGEST: (u32, u32) = (3840, 2160);
/// Smaller ones show nothing.
const SMALLEST: u32 = 16;

/// Size of a film, pixels; both numbers are even, as H.264 needs them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FilmSize {
    width: u32,
    height: u32,
}

impl Default for FilmSize {
    fn default() -> Self {
        Self {
            width: 480,
            height: 360,
        }
    }
}

impl Display for FilmSize {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}x{}", self.width, self.height)
    }
}

impl FromStr for FilmSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || {
            let (width, height) = LARGEST;
            format!("expected WIDTHxHEIGHT, even numbers from {SMALLEST}x{SMALLEST} to {width}x{height}")
        };
        let number = |text: &str, most: u32| {
            let number = text.parse::<u32>().ok();
            number.filter(|n| n.is_multiple_of(2) && (SMALLEST..=most).contains(n))
        };
        let (width, height) = text.split_once('x').ok_or_else(expected)?;
        let sizes = (number(width, LARGEST.0), number(height, LARGEST.1));
        let (Some(width), Some(height)) = sizes else {
            return Err(expected());
        };
        Ok(Self { width, height })
    }
}

/// Films of a run's evaluations, the first episode of each: `films/step_00010000.mp4`.
pub struct Films {
    folder: PathBuf,
    size: FilmSize,
}

impl Films {
    /// Films of `size` into the run folder `run`, if pictures of `env` can be drawn. Where they cannot, one warning says
    /// what is missing, and the run goes on without films.
    pub fn of_run(run: &Path, size: FilmSize, env: &mut dyn Env) -> Option<Self> {
        let films = Self {
            folder: run.join("films"),
            size,
        };
        match films.prepare(env) {
            Ok(()) => Some(films),
            Err(error) => {
                tracing::warn!("no films: {error:#}");
                None
            }
        }
    }

    fn prepare(&self, env: &mut dyn Env) -> anyhow::Result<()> {
        Recording::check(self.size, env)?;
        std::fs::create_dir_all(&self.folder)
            .with_context(|| format!("cannot make the folder {}", self.folder.display()))
    }

    /// Starts the film of the evaluation at `step`; a warning where that cannot be.
    pub fn start(&self, step: u64, env: &mut dyn Env) -> Option<FirstEpisode> {
        let path = self.folder.join(format!("step_{step:08}.mp4"));
        let recording = Recording::start(&path, self.size, env);
        let recording = recording.inspect_err(|error| tracing::warn!("no film of step {step}: {error:#}"));
        Some(FirstEpisode(recording.ok()?))
    }
}

/// Films the first episode of an evaluation.
pub struct FirstEpisode(Recording);

impl FirstEpisode {
    /// Ends the film; a warning where it did not come about.
    pub fn finish(self) {
        if let Err(error) = self.0.finish() {
            tracing::warn!("no film of an evaluation: {error:#}");
        }
    }
}

impl Onlooker for FirstEpisode {
    fn look(&mut self, episode: u64, step: u64, env: &mut dyn Env) {
        if episode == 0 {
            self.0.look(episode, step, env);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_even_and_within_what_the_encoder_takes() {
        let size: FilmSize = "640x480".parse().unwrap();
        assert_eq!((size.width, size.height), (640, 480));
        assert_eq!(size.to_string().parse(), Ok(size));
        for bad in [
            "640", "641x480", "640x481", "0x0", "4000x400", "400x2162", "axb", "-2x20", "",
        ] {
            let text = bad.parse::<FilmSize>().unwrap_err();
            assert!(text.contains("WIDTHxHEIGHT"), "{bad}: {text}");
        }
    }
}
