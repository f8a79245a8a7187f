//! A model drawn off-screen.

use mujoco_rs::prelude::{MjtObjBase, MjvCamera};
use mujoco_rs::renderer::MjRenderer;

use super::Physics;
use crate::SimError;
use crate::camera::{Camera, Detail, View};

/// The camera that follows the body in the models of Gymnasium.
const FOLLOWING: &str = "track";
/// Things to draw beside the model's geoms: segments of tendons, skins.
const MORE_TO_DRAW: u32 = 1000;
/// Pixels along the map of a light's shadows in a film.
const FILM_SHADOWS: i32 = 2048;

/// Draws a model off-screen, through one camera.
pub struct Renderer {
    renderer: MjRenderer,
}

impl Renderer {
    /// A renderer of `physics`. The model's buffer for pictures is enlarged where it is smaller than `view`.
    ///
    /// # Errors
    /// [`SimError::MissingElement`] for an unknown camera, [`SimError::Rendering`] where EGL is missing.
    pub fn new(physics: &mut Physics, view: View) -> Result<Self, SimError> {
        let camera = physics.camera(view.camera)?;
        // SAFETY: only numbers that the renderer alone reads are written; no size, index or address changes.
        let visual = unsafe { physics.data.model_mut() }.vis_mut();
        visual.global.offwidth = visual.global.offwidth.max(view.width as i32);
        visual.global.offheight = visual.global.offheight.max(view.height as i32);
        if view.detail == Detail::Film {
            visual.quality.shadowsize = visual.quality.shadowsize.min(FILM_SHADOWS);
            visual.quality.offsamples = 0;
        }
        let renderer = MjRenderer::builder()
            .width(view.width)
            .height(view.height)
            .num_visual_internal_geom(MORE_TO_DRAW)
            .camera(camera)
            .build(physics.data.model())
            .map_err(rendering_error)?;
        Ok(Self { renderer })
    }

    /// Draws the current pose: RGB, 8 bits, rows from the top, `[height, width, 3]`.
    ///
    /// # Errors
    /// [`SimError::Rendering`].
    pub fn draw(&mut self, physics: &mut Physics) -> Result<Vec<u8>, SimError> {
        self.renderer
            .sync_data(&mut physics.data)
            .map_err(rendering_error)?;
        self.renderer.render().map_err(rendering_error)?;
        self.renderer
            .rgb_flat()
            .map(<[u8]>::to_vec)
            .ok_or_else(|| SimError::Rendering("the renderer gave no picture".into()))
    }
}

impl Physics {
    fn camera(&self, camera: Camera) -> Result<MjvCamera, SimError> {
        let model = self.data.model();
        match camera {
            Camera::Named(name) => self
                .find(MjtObjBase::mjOBJ_CAMERA, "camera", name)
                .map(MjvCamera::new_fixed),
            Camera::Towards { point, distance } => {
                let mut camera = MjvCamera::new_free(model);
                (camera.lookat, camera.distance) = (point, distance);
                (camera.azimuth, camera.elevation) = (90.0, -45.0);
                Ok(camera)
            }
            Camera::Usual => Ok(match model.name_to_id(MjtObjBase::mjOBJ_CAMERA, FOLLOWING) {
                Some(id) => MjvCamera::new_fixed(id),
                None if !model.cam_pos().is_empty() => MjvCamera::new_fixed(0),
                None => MjvCamera::new_free(model),
            }),
        }
    }
}

fn rendering_error(error: mujoco_rs::renderer::RendererError) -> SimError {
    let cause = std::error::Error::source(&error).map(|source| format!(" ({source})"));
    SimError::Rendering(format!("{error}{}", cause.unwrap_or_default()))
}
