//! Pictures, off-screen. Run with `--features renderer`, where EGL is available.

use mfpo_sim::picture::{Picture, film_strip};
use mfpo_sim::tasks::RobotTask;
use mfpo_sim::{SimError, registry};

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
