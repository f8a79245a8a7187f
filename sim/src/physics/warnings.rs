//! What MuJoCo warns of, and counts, while it steps.

use mujoco_rs::prelude::MjtWarning;

use super::Physics;

/// The physics diverged. Unless the model switches `autoreset` off, MuJoCo then puts it into its rest pose.
const DIVERGED: [(MjtWarning, &str); 3] = [
    (
        MjtWarning::mjWARN_BADQPOS,
        "a position that is huge or not finite",
    ),
    (
        MjtWarning::mjWARN_BADQVEL,
        "a velocity that is huge or not finite",
    ),
    (
        MjtWarning::mjWARN_BADQACC,
        "an acceleration that is huge or not finite",
    ),
];

/// All others.
const OTHERS: [(MjtWarning, &str); 4] = [
    (MjtWarning::mjWARN_BADCTRL, "a command that is huge or not finite"),
    (
        MjtWarning::mjWARN_INERTIA,
        "an inertia matrix that is nearly singular",
    ),
    (
        MjtWarning::mjWARN_CONTACTFULL,
        "more contacts than it has memory for",
    ),
    (
        MjtWarning::mjWARN_CNSTRFULL,
        "more constraints than it has memory for",
    ),
];

impl Physics {
    /// Has MuJoCo met a position, velocity or acceleration that is huge or not finite since the last reset? It has mostly put the
    /// model into its rest pose then, and [`Physics::check`] finds nothing.
    pub fn has_diverged(&self) -> bool {
        self.first_of(&DIVERGED).is_some()
    }

    /// What MuJoCo has warned of since the last reset, of several what says most.
    pub fn warning(&self) -> Option<&'static str> {
        self.first_of(&DIVERGED).or_else(|| self.first_of(&OTHERS))
    }

    fn first_of(&self, warnings: &[(MjtWarning, &'static str)]) -> Option<&'static str> {
        let told = self.data.warning();
        let found = warnings.iter().find(|(kind, _)| told[*kind as usize].number > 0);
        found.map(|(_, what)| *what)
    }
}
