//! Pictures, off-screen. Run with `--features renderer`, where EGL is available.

use mfpo_sim::camera::{Camera, Detail, View};
use mfpo_sim::physics::{Physics, Renderer};
use mfpo_sim::picture::{Picture, film_strip};
use mfpo_sim::tasks::RobotTask;
use mfpo_sim::{EnvOptions, SimError, registry};

/// Whether pictures can be drawn here. Where `cargo xtask test` has found no EGL (MFPO_WITHOUT_RENDERING is set) the
/// error must say what to install instead.
fn can_draw(task: &dyn RobotTask) -> bool {
    if std::env::var_os("MFPO_WITHOUT_RENDERING").is_none() {
        return true;
    }
    let error = film_strip(task, &[], 60, 80).unwrap_err();
    assert!(matches!(error, SimError::Rendering(_)), "{error}");
    assert!(error.to_string().contains("apt-get install libegl1"), "{error}");
    false
}

/// Share of orange pixels (the arm) in a band of rows.
fn orange(picture: &Picture, rows: std::ops::Range<usize>) -> f64 {
    let band = &picture.pixels[rows.start * picture.width * 3..rows.end * picture.width * 3];
    let pixels = band.chunks_exact(3).map(|p| [p[0], p[1], p[2]].map(u32::from));
    let total = pixels.len() as f64;
    let arm = pixels.filter(|[red, green, blue]| *red > 150 && *red > green + 40 && *green > blue + 20);
    arm.count() as f64 / total
}

#[test]
fn the_arm_is_seen_where_its_pose_puts_it() {
    let task = registry::robot("swing_arm").unwrap();
    if !can_draw(task.as_ref()) {
        return;
    }
    let hanging = film_strip(task.as_ref(), &[vec![std::f64::consts::PI]], 150, 200).unwrap();
    let upright = film_strip(task.as_ref(), &[vec![0.0]], 150, 200).unwrap();
    assert_eq!((hanging.width, hanging.height), (150, 200));
    let (above, below) = (20..80, 110..160);
    assert!(orange(&upright, above.clone()) > 10.0 * orange(&hanging, above) + 0.005);
    assert!(orange(&hanging, below.clone()) > 10.0 * orange(&upright, below) + 0.005);
}

#[test]
fn a_strip_is_as_wide_as_its_poses_and_is_a_png() {
    let task = registry::robot("swing_arm").unwrap();
    if !can_draw(task.as_ref()) {
        return;
    }
    let strip = film_strip(task.as_ref(), &[vec![3.0], vec![1.0], vec![0.0]], 60, 80).unwrap();
    assert_eq!(strip.width, 3 * 60 + 2 * 6);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("strip.png");
    strip.save(&path).unwrap();
    let decoder = png::Decoder::new(std::io::BufReader::new(std::fs::File::open(&path).unwrap()));
    let reader = decoder.read_info().unwrap();
    assert_eq!((reader.info().width, reader.info().height), (192, 80));
}

#[test]
fn a_pose_of_the_wrong_length_is_refused() {
    let task = registry::robot("swing_arm").unwrap();
    let error = film_strip(task.as_ref(), &[vec![0.0, 1.0]], 60, 80).unwrap_err();
    assert!(
        matches!(
            error,
            SimError::Size {
                expected: 1,
                got: 2,
                ..
            }
        ),
        "{error}"
    );
}

const SMALL: View = View {
    camera: Camera::Usual,
    width: 80,
    height: 60,
    detail: Detail::Film,
};

/// How much the pixels of a picture spread about their mean, levels of 255.
fn contrast(pixels: &[u8]) -> f64 {
    let count = pixels.len() as f64;
    let mean = pixels.iter().map(|p| f64::from(*p)).sum::<f64>() / count;
    let variance = pixels.iter().map(|p| (f64::from(*p) - mean).powi(2)).sum::<f64>();
    (variance / count).sqrt()
}

#[test]
fn every_task_is_seen_to_move() {
    if !can_draw(registry::robot("swing_arm").unwrap().as_ref()) {
        return;
    }
    for name in registry::names() {
        let mut env = registry::make(name, &EnvOptions::evaluate()).unwrap();
        let view = View {
            camera: env.camera(),
            ..SMALL
        };
        env.reset(3).unwrap();
        let mut renderer = Renderer::new(env.physics(), view).unwrap();
        let before = renderer.draw(env.physics()).unwrap();
        let action = vec![0.7; env.spec().action_size];
        for _ in 0..20 {
            if env.step(&action).unwrap().terminated {
                break;
            }
        }
        let after = renderer.draw(env.physics()).unwrap();
        assert_eq!(before.len(), 80 * 60 * 3, "{name}");
        assert!(contrast(&before) > 5.0, "{name}: {}", contrast(&before));
        assert_ne!(before, after, "{name}");
    }
}

#[test]
fn drawing_changes_nothing_in_the_episode() {
    if !can_draw(registry::robot("swing_arm").unwrap().as_ref()) {
        return;
    }
    let observations = |drawn: bool| {
        let mut env = registry::make("quadruped-run", &EnvOptions::evaluate()).unwrap();
        let mut observations = vec![env.reset(3).unwrap()];
        let view = View {
            camera: env.camera(),
            ..SMALL
        };
        let mut renderer = drawn.then(|| Renderer::new(env.physics(), view).unwrap());
        for step in 0..30 {
            if let Some(renderer) = &mut renderer {
                renderer.draw(env.physics()).unwrap();
            }
            let action = vec![(step as f32).sin(); env.spec().action_size];
            observations.push(env.step(&action).unwrap().observation);
        }
        observations
    };
    assert_eq!(observations(false), observations(true));
}

#[test]
fn pictures_may_be_larger_than_the_models_own_and_cameras_may_be_missing() {
    let ball = "<mujoco><worldbody><body><freejoint/><geom size='1'/></body></worldbody></mujoco>";
    let mut physics = Physics::from_xml(ball).unwrap();
    physics.forward();
    let missing = View {
        camera: Camera::Named("front"),
        ..SMALL
    };
    let error = Renderer::new(&mut physics, missing).err().unwrap().to_string();
    assert!(error.contains("no camera 'front'"), "{error}");
    if !can_draw(registry::robot("swing_arm").unwrap().as_ref()) {
        return;
    }
    // The model's own are 640 x 480.
    let large = View {
        width: 1000,
        height: 700,
        ..SMALL
    };
    let mut renderer = Renderer::new(&mut physics, large).unwrap();
    let picture = renderer.draw(&mut physics).unwrap();
    let corner = |row: usize, column: usize| &picture[3 * (row * 1000 + column)..][..3];
    assert_eq!(corner(0, 0), corner(699, 999));
    assert_ne!(corner(0, 0), corner(350, 500), "the ball is in the middle");
}
