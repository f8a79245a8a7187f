//! A film of the episodes that it looks at.

use std::path::Path;

use anyhow::{Context, anyhow};
use mfpo_sim::camera::{Detail, View};
use mfpo_sim::physics::Renderer;
use mfpo_sim::{Env, SimError};

use super::mp4::Mp4;
use super::{FilmSize, Pace};
use crate::evaluate::Onlooker;

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
