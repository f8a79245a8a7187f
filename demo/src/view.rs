//! How the demo is shown: one screen, or lines.

use crate::lines::Lines;
use crate::screen::Screen;
use crate::story::Story;

/// A screen or lines.
pub enum View {
    /// For a person at a terminal.
    Screen(Box<Screen>),
    /// For a log.
    Lines(Lines),
}

impl View {
    /// Shows the story as it is now and waits for a moment. Did the person ask to stop?
    pub fn show(&mut self, story: &Story) -> anyhow::Result<bool> {
        match self {
            Self::Screen(screen) => screen.show(story),
            Self::Lines(lines) => {
                lines.show(story);
                std::thread::sleep(crate::LOOK);
                Ok(false)
            }
        }
    }
}
