//! A stamp says that a step was finished with certain inputs; an interrupted step leaves none.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// One step's stamp: a file that holds the hash of the step's inputs.
pub struct Stamp {
    path: PathBuf,
    inputs: String,
}

impl Stamp {
    /// The stamp at `path` for a step whose inputs have the hash `inputs`.
    pub fn new(path: PathBuf, inputs: String) -> Self {
        Self { path, inputs }
    }

    /// Whether the step was finished with these inputs.
    pub fn is_current(&self) -> bool {
        fs::read_to_string(&self.path).is_ok_and(|found| found == self.inputs)
    }

    /// Takes the stamp away: before the step begins to change things.
    pub fn clear(&self) -> Result<()> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove {}", self.path.display()))
            }
            _ => Ok(()),
        }
    }

    /// Sets the stamp: after the step has finished.
    pub fn set(&self) -> Result<()> {
        replace(&self.path, &self.inputs)
    }
}

/// Writes a file whole or not at all, and leaves it alone where it is the same already.
pub fn replace(path: &Path, text: &str) -> Result<()> {
    if fs::read_to_string(path).is_ok_and(|found| found == text) {
        return Ok(());
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let partial = path.with_added_extension("partial");
    fs::write(&partial, text).with_context(|| format!("cannot write {}", partial.display()))?;
    fs::rename(&partial, path).with_context(|| format!("cannot write {}", path.display()))
}

/// Removes a folder and all in it; one that is not there is no error.
pub fn remove_folder(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::{Stamp, replace};

    #[test]
    fn stamp_is_current_only_when_set_with_the_same_inputs() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("deep/stamp");
        let stamp = Stamp::new(path.clone(), "one".into());
        assert!(!stamp.is_current());
        stamp.clear().expect("clearing nothing is no error");
        stamp.set().expect("set");
        assert!(stamp.is_current());
        assert!(!Stamp::new(path, "two".into()).is_current());
        stamp.clear().expect("clear");
        assert!(!stamp.is_current());
    }

    #[test]
    fn replacing_a_file_with_the_same_text_leaves_it_untouched() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("file");
        replace(&path, "text").expect("write");
        let before = path.metadata().expect("there").modified().expect("a time");
        std::thread::sleep(std::time::Duration::from_millis(20));
        replace(&path, "text").expect("write");
        assert_eq!(
            before,
            path.metadata().expect("there").modified().expect("a time")
        );
        replace(&path, "other").expect("write");
        assert_eq!(std::fs::read_to_string(&path).expect("read"), "other");
    }
}
