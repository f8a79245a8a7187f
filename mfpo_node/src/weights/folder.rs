//! A folder that is watched for bundles: whoever trains elsewhere copies a file there. The newest file that was not
//! looked at yet is offered; where it is refused, the next newest is, down to the one that went live last. A file that
//! is still being written is left alone until it rests. One that was refused for a parameter is looked at again when that
//! has changed.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// How the name of a bundle ends.
const ENDING: &str = "safetensors";

/// A file as it is at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Found {
    /// Where it is.
    pub path: PathBuf,
    /// When it was written.
    pub modified: SystemTime,
    size: u64,
}

/// Remembers what was looked at.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    looked_at: HashSet<Found>,
    /// Those of them that were refused for a parameter.
    refused: HashSet<Found>,
    /// The newest file at the last look.
    last: Option<Found>,
    /// When the file that went live was written.
    live: Option<SystemTime>,
}

impl Folder {
    /// Nothing looked at yet.
    pub fn new(path: PathBuf) -> Self {
        Self {
            path,
            looked_at: HashSet::new(),
            refused: HashSet::new(),
            last: None,
            live: None,
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The newest file that was not looked at yet and has not changed since the last call; it counts as looked at.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn newest(&mut self) -> io::Result<Option<Found>> {
        let mut newest: Option<Found> = None;
        for entry in std::fs::read_dir(&self.path)? {
            // A file that vanishes between two calls was never there.
            let Some(found) = entry.ok().and_then(|entry| found(&entry.path())) else {
                continue;
            };
            let is_new =
                self.live.is_none_or(|live| found.modified > live) && !self.looked_at.contains(&found);
            if is_new
                && newest
                    .as_ref()
                    .is_none_or(|newest| found.modified > newest.modified)
            {
                newest = Some(found);
            }
        }
        let rests = newest.is_some() && newest == self.last;
        self.last.clone_from(&newest);
        if !rests {
            return Ok(None);
        }
        self.looked_at.extend(newest.clone());
        Ok(newest)
    }

    /// A file went live: older ones are of no interest any more.
    pub fn went_live(&mut self, found: &Found) {
        self.live = Some(found.modified);
        self.looked_at.clear();
        self.refused.clear();
    }

    /// A file was refused for a parameter.
    pub fn keep_refused(&mut self, found: &Found) {
        self.refused.insert(found.clone());
    }

    /// The parameters that decide about bundles have changed: what they refused counts as not looked at.
    pub fn look_again(&mut self) {
        for found in self.refused.drain() {
            self.looked_at.remove(&found);
        }
    }
}

fn found(path: &Path) -> Option<Found> {
    if path.extension().is_none_or(|ending| ending != ENDING) {
        return None;
    }
    let metadata = std::fs::metadata(path).ok().filter(|m| m.is_file())?;
    Some(Found {
        path: path.to_owned(),
        modified: metadata.modified().ok()?,
        size: metadata.len(),
    })
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::time::Duration;

    use super::*;

    /// Writes a file of some age, s.
    fn write(folder: &Path, name: &str, text: &str, age: u64) {
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        let file = File::options().write(true).open(path).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(age))
            .unwrap();
    }

    fn newest(folder: &mut Folder) -> Option<String> {
        folder.newest().unwrap();
        let found = folder.newest().unwrap()?;
        found.path.file_name()?.to_str().map(str::to_owned)
    }

    #[test]
    fn the_newest_file_is_offered_first_and_each_only_once() {
        let place = tempfile::tempdir().unwrap();
        write(place.path(), "old.safetensors", "a", 30);
        write(place.path(), "new.safetensors", "b", 10);
        write(place.path(), "notes.txt", "c", 1);
        let mut folder = Folder::new(place.path().to_owned());
        assert_eq!(newest(&mut folder).as_deref(), Some("new.safetensors"));
        assert_eq!(newest(&mut folder).as_deref(), Some("old.safetensors"));
        assert_eq!(newest(&mut folder), None);
        write(place.path(), "old.safetensors", "changed", 5);
        assert_eq!(newest(&mut folder).as_deref(), Some("old.safetensors"));
    }

    #[test]
    fn what_is_older_than_the_live_file_is_of_no_interest() {
        let place = tempfile::tempdir().unwrap();
        write(place.path(), "old.safetensors", "a", 30);
        write(place.path(), "new.safetensors", "b", 10);
        let mut folder = Folder::new(place.path().to_owned());
        folder.newest().unwrap();
        let found = folder.newest().unwrap().unwrap();
        folder.went_live(&found);
        assert_eq!(newest(&mut folder), None);
    }

    #[test]
    fn what_was_refused_for_a_parameter_is_offered_again_when_that_has_changed() {
        let place = tempfile::tempdir().unwrap();
        write(place.path(), "damaged.safetensors", "a", 30);
        write(place.path(), "other_run.safetensors", "b", 10);
        let mut folder = Folder::new(place.path().to_owned());
        folder.newest().unwrap();
        let found = folder.newest().unwrap().unwrap();
        folder.keep_refused(&found);
        assert_eq!(newest(&mut folder).as_deref(), Some("damaged.safetensors"));
        assert_eq!(newest(&mut folder), None);
        folder.look_again();
        assert_eq!(newest(&mut folder).as_deref(), Some("other_run.safetensors"));
        assert_eq!(newest(&mut folder), None);
    }

    #[test]
    fn a_file_that_is_being_written_is_left_alone_until_it_rests() {
        let place = tempfile::tempdir().unwrap();
        let mut folder = Folder::new(place.path().to_owned());
        for text in ["a", "ab", "abc"] {
            write(place.path(), "policy.safetensors", text, 10);
            assert_eq!(folder.newest().unwrap(), None);
        }
        assert!(folder.newest().unwrap().is_some());
    }

    #[test]
    fn a_folder_that_is_not_there_is_an_error() {
        assert!(Folder::new("/nowhere/at/all".into()).newest().is_err());
    }
}
