//! In how many of the compared steps something must touch.

use crate::DRIVEN;

/// Tasks in whose model anything can touch, and in how many of the steps it does at least: about three quarters of the fewest
/// that were counted, under default and other options and with actions changed by up to 1e-7. In all other models contacts or
/// constraints are switched off, or no two geoms may collide.
const LEAST: [(&str, usize); 27] = [
    ("Ant-v5", 1200),
    ("HalfCheetah-v5", 1500),
    ("Hopper-v5", 1800),
    ("Humanoid-v5", 2300),
    ("HumanoidStandup-v5", 2300),
    ("Pusher-v5", 3300),
    ("Walker2d-v5", 1200),
    ("ball_in_cup-catch", 230),
    ("cheetah-run", 1700),
    ("dog-run", 2200),
    ("dog-stand", 2200),
    ("dog-trot", 2200),
    ("dog-walk", 2200),
    ("finger-spin", 60),
    ("finger-turn_easy", 65),
    ("finger-turn_hard", 65),
    ("hopper-hop", 2200),
    ("hopper-stand", 2200),
    ("humanoid-run", 2100),
    ("humanoid-stand", 2100),
    ("humanoid-walk", 2100),
    ("manipulator-bring_ball", 2400),
    ("quadruped-run", 2200),
    ("quadruped-walk", 2200),
    ("walker-run", 1800),
    ("walker-stand", 1800),
    ("walker-walk", 1800),
];

/// Refuses a comparison that is not about what the task is about: `steps` of those that were compared had a contact.
pub fn check(task: &str, steps: usize) {
    let least = LEAST
        .iter()
        .find(|(name, _)| *name == task)
        .map(|(_, least)| *least);
    match least {
        Some(least) => assert!(
            steps >= least,
            "{task}: {steps} of {DRIVEN} steps with contact, expected {least} or more: what is compared is not what the task is \
             about"
        ),
        None => assert_eq!(
            steps, 0,
            "{task}: nothing can touch in its model, or it belongs in the table"
        ),
    }
}
