//! A folder that is watched for bundles: whoever trains elsewhere copies a file there. The newest file that was not
//! looked at yet is offered; where it is refused, the next newest is, down to the one that went live last. A file that
//! is still being written is left alone until it rests. One that was refused for a parameter is looked at again when that
//! has changed.
//!
//! A file that says it was written after it came here, by a clock that is ahead, counts as written when it came: it must
//! not silence those that come later.

use std::collections::HashSet;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// How the name of a bundle ends.
const ENDING: &str = "safetensors";
/// Clocks of two machines that agree differ by less.
const SAME_TIME: Duration = Duration::from_secs(2);

/// A file as it is at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Found {
    /// Where it is.
    pub path: PathBuf,
    /// When it says that it was written.
    modified: SystemTime,
    /// When it was, as far as this can be believed: the file system's own clock knows when it came.
    written: SystemTime,
    size: u64,
}

impl Found {
    /// How far the time that it says is ahead of the one at which it came, where that is no rounding.
    pub fn ahead(&self) -> Option<Duration> {
        let ahead = self.modified.duration_since(self.written).ok()?;
        Some(ahead).filter(|ahead| *ahead > SAME_TIME)
    }
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
                self.live.is_none_or(|live| found.written > live) && !self.looked_at.contains(&found);
            if is_new
                && newest
                    .as_ref()
                    .is_none_or(|newest| found.written > newest.written)
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

    /// A file went live: older ones are of no interest any more. Newer ones that were refused stay so.
    pub fn went_live(&mut self, found: &Found) {
        let live = found.written;
        self.live = Some(live);
        self.looked_at.retain(|other| other.written > live);
        self.refused.retain(|other| other.written > live);
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
    let modified = metadata.modified().ok()?;
    Some(Found {
        path: path.to_owned(),
        modified,
        written: came(&metadata).map_or(modified, |came| modified.min(came)),
        size: metadata.len(),
    })
}

/// When a file's content, name, place or times were changed last, by the clock of the file system: nobody sets this one.
fn came(metadata: &Metadata) -> Option<SystemTime> {
    let seconds = Duration::from_secs(u64::try_from(metadata.ctime()).ok()?);
    let nanoseconds = Duration::from_nanos(u64::try_from(metadata.ctime_nsec()).ok()?);
    SystemTime::UNIX_EPOCH.checked_add(seconds + nanoseconds)
}

#[cfg(test)]
mod tests {
    use std::fs::File;

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
    fn a_file_from_the_future_goes_live_once_and_silences_no_later_one() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("future.safetensors");
        std::fs::write(&path, "a").unwrap();
        let file = File::options().write(true).open(&path).unwrap();
        file.set_modified(SystemTime::now() + Duration::from_secs(86_400))
            .unwrap();
        let mut folder = Folder::new(place.path().to_owned());
        folder.newest().unwrap();
        let found = folder.newest().unwrap().unwrap();
        assert!(found.ahead() > Some(Duration::from_secs(86_000)));
        folder.went_live(&found);
        assert_eq!(newest(&mut folder), None, "once");
        // The file system's clock is no finer than this.
        std::thread::sleep(Duration::from_millis(50));
        std::fs::write(place.path().join("later.safetensors"), "b").unwrap();
        assert_eq!(newest(&mut folder).as_deref(), Some("later.safetensors"));
    }

    #[test]
    fn a_file_of_the_past_is_ahead_of_nothing_and_one_that_was_refused_stays_so_when_an_older_goes_live() {
        let place = tempfile::tempdir().unwrap();
        write(place.path(), "old.safetensors", "a", 30);
        write(place.path(), "damaged.safetensors", "b", 10);
        let mut folder = Folder::new(place.path().to_owned());
        assert_eq!(newest(&mut folder).as_deref(), Some("damaged.safetensors"));
        folder.newest().unwrap();
        let old = folder.newest().unwrap().unwrap();
        assert_eq!(old.ahead(), None);
        folder.went_live(&old);
        assert_eq!(newest(&mut folder), None);
    }

    #[test]
    fn a_folder_that_is_not_there_is_an_error() {
        assert!(Folder::new("/nowhere/at/all".into()).newest().is_err());
    }
}
