//! Film strips: a row of pictures of a task's robot, one a pose, as a PNG.

use std::path::Path;

use crate::camera::{Camera, Detail, View};
use crate::physics::{Physics, Renderer};
use crate::tasks::RobotTask;
use crate::{Mode, SimError};

/// White columns between two pictures.
const GAP: usize = 6;
/// Bytes of a pixel.
const RGB: usize = 3;

/// An RGB picture, 8 bits a channel.
#[derive(Debug, Clone, PartialEq)]
pub struct Picture {
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Rows from the top, `[height, width, 3]`.
    pub pixels: Vec<u8>,
}

/// Draws `task`'s robot in each of `poses` (the model's position coordinates), `width` x `height` pixels each, side
/// by side. Without poses the robot is drawn at a start of its episodes.
///
/// # Errors
/// [`SimError::Rendering`] where off-screen rendering is not available, [`SimError::Size`] or
/// [`SimError::NotFinite`] for a wrong pose.
pub fn film_strip(
    task: &dyn RobotTask,
    poses: &[Vec<f64>],
    width: u32,
    height: u32,
) -> Result<Picture, SimError> {
    let mut physics = Physics::from_xml(task.model())?;
    // A wrong pose is the caller's to mend, with or without a renderer.
    poses.iter().try_for_each(|pose| physics.pose(pose))?;
    let view = View {
        camera: Camera::Named(task.camera()),
        width,
        height,
        detail: Detail::Still,
    };
    let mut renderer = Renderer::new(&mut physics, view)?;
    let at_rest;
    let poses = if poses.is_empty() {
        at_rest = [start_pose(task)];
        &at_rest[..]
    } else {
        poses
    };
    let mut pictures = Vec::with_capacity(poses.len());
    for pose in poses {
        physics.pose(pose)?;
        pictures.push(renderer.draw(&mut physics)?);
    }
    Ok(side_by_side(&pictures, width as usize, height as usize))
}

fn start_pose(task: &dyn RobotTask) -> Vec<f64> {
    let mut rng = rand::SeedableRng::seed_from_u64(0);
    task.start(Mode::Evaluate, &mut rng).positions
}

/// Joins pictures of the same size, with a white gap.
fn side_by_side(pictures: &[Vec<u8>], width: usize, height: usize) -> Picture {
    let total = pictures.len() * width + pictures.len().saturating_sub(1) * GAP;
    let mut pixels = vec![255; total * height * RGB];
    for (k, picture) in pictures.iter().enumerate() {
        let left = k * (width + GAP) * RGB;
        for (row, source) in picture.chunks_exact(width * RGB).enumerate() {
            let begin = row * total * RGB + left;
            pixels[begin..begin + width * RGB].copy_from_slice(source);
        }
    }
    Picture {
        width: total,
        height,
        pixels,
    }
}

impl Picture {
    /// Writes a PNG.
    ///
    /// # Errors
    /// What the file system or the encoder reports.
    pub fn save(&self, path: &Path) -> std::io::Result<()> {
        let file = std::io::BufWriter::new(std::fs::File::create(path)?);
        let mut encoder = png::Encoder::new(file, self.width as u32, self.height as u32);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        let mut writer = encoder.write_header()?;
        writer.write_image_data(&self.pixels)?;
        Ok(writer.finish()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_stand_side_by_side_with_a_white_gap() {
        let strip = side_by_side(&[vec![1; 2 * 2 * RGB], vec![2; 2 * 2 * RGB]], 2, 2);
        assert_eq!((strip.width, strip.height), (4 + GAP, 2));
        for row in strip.pixels.chunks_exact(strip.width * RGB) {
            assert!(row[..2 * RGB].iter().all(|p| *p == 1));
            assert!(row[2 * RGB..(2 + GAP) * RGB].iter().all(|p| *p == 255));
            assert!(row[(2 + GAP) * RGB..].iter().all(|p| *p == 2));
        }
    }
}
