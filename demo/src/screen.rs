//! The terminal: one screen, given back as it was on every way out.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Mutex;

use anyhow::Context;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};

use crate::panels;
use crate::story::Story;

/// Where standard error goes once the screen is closed.
static STANDARD_ERROR: Mutex<Option<OwnedFd>> = Mutex::new(None);

/// The terminal in its alternate screen; dropping it gives the terminal back.
pub struct Screen {
    terminal: DefaultTerminal,
}

impl Screen {
    /// Takes the terminal over. What libraries write to standard error goes to `log` meanwhile.
    ///
    /// # Errors
    /// When the terminal does not obey.
    pub fn open(log: &File) -> anyhow::Result<Self> {
        let terminal = ratatui::try_init().context("the terminal cannot show the screen; try --headless")?;
        keep_standard_error(log).context("cannot redirect standard error")?;
        // ratatui's own hook gives the terminal back; the message has to reach it, not the log.
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            give_standard_error_back();
            hook(panic);
        }));
        Ok(Self { terminal })
    }

    /// Draws the story, and waits for a moment for a key. Did the person ask to stop?
    ///
    /// # Errors
    /// When the terminal is gone.
    pub fn show(&mut self, story: &Story) -> anyhow::Result<bool> {
        self.terminal.draw(|frame| panels::draw(frame, story))?;
        if !event::poll(crate::LOOK)? {
            return Ok(false);
        }
        Ok(matches!(event::read()?, Event::Key(key)
            if key.kind == KeyEventKind::Press && is_stop(key.code, key.modifiers)))
    }
}

fn is_stop(code: KeyCode, modifiers: KeyModifiers) -> bool {
    matches!(code, KeyCode::Char('q') | KeyCode::Esc)
        || (code == KeyCode::Char('c') && modifiers.contains(KeyModifiers::CONTROL))
}

impl Drop for Screen {
    fn drop(&mut self) {
        // After a panic the hook has done so, and a second time would move the cursor into the message.
        if !std::thread::panicking() {
            ratatui::restore();
        }
        give_standard_error_back();
    }
}

fn keep_standard_error(log: &File) -> std::io::Result<()> {
    let kept = std::io::stderr().as_fd().try_clone_to_owned()?;
    lead_standard_error_to(log.as_fd())?;
    if let Ok(mut slot) = STANDARD_ERROR.lock() {
        *slot = Some(kept);
    }
    Ok(())
}

fn lead_standard_error_to(file: BorrowedFd<'_>) -> std::io::Result<()> {
    // SAFETY: both descriptors are open, and standard error stays so.
    match unsafe { libc::dup2(file.as_raw_fd(), libc::STDERR_FILENO) } {
        -1 => Err(std::io::Error::last_os_error()),
        _ => Ok(()),
    }
}

fn give_standard_error_back() {
    let kept = STANDARD_ERROR.lock().ok().and_then(|mut slot| slot.take());
    if let Some(kept) = kept {
        // Without it messages would go to the log, which is all that can be done.
        let _ = lead_standard_error_to(kept.as_fd());
    }
}
