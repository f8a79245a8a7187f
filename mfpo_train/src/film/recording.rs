//! A film of the episodes that it looks at.

use std::path::Path;

use anyhow::{Context, anyhow};
use mfpo_sim::camera::{Detail, View};
use mfpo_sim::physics::Renderer;
use mfpo_sim::{Env, SimError};

use super::FilmSize;
use super::mp4::Mp4;
use crate::evaluate::Onlooker;

/// More pictures a second are left out.
const MOST_PICTURES_PER_SECOND: f64 = 50.0;

/// Which steps of an episode become pictures.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Pace {
    /// Every so many steps.
    every: u64,
    /// Time that a picture stands, s.
    seconds: f64,
}

impl Pace {
    /// Real time, with as many pictures as are worth showing.
    fn of(control_period: f64) -> Self {
        let every = (1.0 / (MOST_PICTURES_PER_SECOND * control_period) - 1e-6)
            .ceil()
            .max(1.0);
        Self {
            every: every as u64,
            seconds: every * control_period,
        }
    }
}

/// A film in the making.
pub struct Recording {
    renderer: Renderer,
    pace: Pace,
    film: anyhow::Result<Mp4>,
}

fn renderer(size: FilmSize, env: &mut dyn Env) -> Result<Renderer, SimError> {
    let view = View {
        camera: env.camera(),
        width: size.width,
        height: size.height,
        detail: Detail::Film,
    };
    Renderer::new(env.physics(), view)
}

impl Recording {
    /// Whether films of `env` can be made here.
    ///
    /// # Errors
    /// Without EGL, with what to install.
    pub fn check(size: FilmSize, env: &mut dyn Env) -> anyhow::Result<()> {
        Ok(renderer(size, env).map(drop)?)
    }

    /// Starts a film of `env` in the file `path`, in real time.
    ///
    /// # Errors
    /// Without EGL, with what to install; or when the file cannot be written.
    pub fn start(path: &Path, size: FilmSize, env: &mut dyn Env) -> anyhow::Result<Self> {
        let pace = Pace::of(env.spec().subject.control_period());
        Ok(Self {
            renderer: renderer(size, env)?,
            film: Ok(Mp4::create(path, size, pace.seconds)?),
            pace,
        })
    }

    /// Ends the film; only then its file is there.
    ///
    /// # Errors
    /// The first thing that went wrong since the start.
    pub fn finish(self) -> anyhow::Result<()> {
        self.film?.finish()
    }

    fn draw(&mut self, env: &mut dyn Env) -> anyhow::Result<()> {
        let Ok(film) = &mut self.film else {
            return Ok(());
        };
        let picture = self
            .renderer
            .draw(env.physics())
            .context("cannot draw a picture")?;
        film.add(&picture)
    }
}

impl Onlooker for Recording {
    fn look(&mut self, _: u64, step: u64, env: &mut dyn Env) {
        if !step.is_multiple_of(self.pace.every) {
            return;
        }
        if let Err(error) = self.draw(env) {
            self.film = Err(anyhow!(error));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn films_run_in_real_time_with_at_most_fifty_pictures_a_second() {
        let pace = |period| Pace::of(period);
        assert_eq!((pace(0.05).every, pace(0.05).seconds), (1, 0.05));
        assert_eq!((pace(0.02).every, pace(0.02).seconds), (1, 0.02));
        assert_eq!((pace(0.015).every, pace(0.015).seconds), (2, 0.03));
        assert_eq!((pace(0.008).every, pace(0.008).seconds), (3, 0.024));
        assert_eq!((pace(2.0).every, pace(2.0).seconds), (1, 2.0));
        for milliseconds in 1..100 {
            let period = f64::from(milliseconds) * 1e-3;
            assert!(pace(period).seconds >= 0.02 - 1e-9, "{period}");
            assert!(pace(period).seconds < 0.02 + period, "{period}");
        }
    }
}
