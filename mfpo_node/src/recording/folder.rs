//! The folder of recordings: names that sort by time, room for the next file, and whether there can be one at all.

use std::ffi::CString;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Recordings of one node.
pub struct Recordings {
    folder: PathBuf,
    /// Every file of this node begins so.
    prefix: String,
    most_bytes: u64,
}

impl Recordings {
    /// Those of `node`, which may take so many bytes together.
    pub fn new(folder: PathBuf, node: &str, most_bytes: u64) -> Self {
        Self {
            folder,
            prefix: format!("mfpo_{}_", node.replace('/', ".")),
            most_bytes,
        }
    }

    /// A file may be as large as this, bytes.
    pub fn file_bytes(&self) -> u64 {
        self.most_bytes / 4
    }

    /// Makes the folder and writes a file there, which goes again; warns where the disk has less room than recordings may
    /// take.
    ///
    /// # Errors
    /// When nothing can be recorded there.
    pub fn check(&self) -> io::Result<()> {
        fs::create_dir_all(&self.folder)?;
        let trial = self
            .folder
            .join(format!(".{}trial_{}", self.prefix, std::process::id()));
        let written = fs::File::create(&trial).and_then(|mut file| file.write_all(b"trial"));
        // Where it could not be made there is nothing to remove.
        let removed = fs::remove_file(&trial);
        written.and(removed)?;
        let taken: u64 = self.files()?.iter().map(|(_, bytes)| bytes).sum();
        let room = free_bytes(&self.folder)?.saturating_add(taken);
        if room < self.most_bytes {
            tracing::warn!(
                "recordings in {} may take {} MB (parameter record.megabytes_max), and the disk has room for {} MB: make room, or \
                 lower the parameter, so that old recordings go before the disk is full",
                self.folder.display(),
                self.most_bytes / 1_000_000,
                room / 1_000_000
            );
        }
        Ok(())
    }

    /// Makes the folder and room for one more file, and names it; the oldest recordings go.
    ///
    /// # Errors
    /// When the folder cannot be made or read.
    pub fn next(&self) -> io::Result<PathBuf> {
        fs::create_dir_all(&self.folder)?;
        let mut there = self.files()?;
        let mut taken: u64 = there.iter().map(|(_, bytes)| bytes).sum();
        there.reverse();
        while taken > self.most_bytes - self.file_bytes() {
            let Some((oldest, bytes)) = there.pop() else { break };
            fs::remove_file(&oldest)?;
            taken -= bytes;
            tracing::info!(
                "removed the oldest recording, {}: all may take {} MB (parameter record.megabytes_max)",
                oldest.display(),
                self.most_bytes / 1_000_000
            );
        }
        Ok(self.free_name(SystemTime::now()))
    }

    /// The recordings that are there, oldest first, with their sizes.
    fn files(&self) -> io::Result<Vec<(PathBuf, u64)>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name.starts_with(&self.prefix) && name.ends_with(".mcap") {
                files.push((entry.path(), entry.metadata()?.len()));
            }
        }
        files.sort();
        Ok(files)
    }

    fn free_name(&self, now: SystemTime) -> PathBuf {
        let time = humantime::format_rfc3339_seconds(now)
            .to_string()
            .replace(':', "-");
        let named = |ending: &str| self.folder.join(format!("{}{time}{ending}.mcap", self.prefix));
        let numbered = (2..1000).map(|number| named(&format!("_{number:03}")));
        std::iter::once(named(""))
            .chain(numbered)
            .find(|path| !path.exists())
            .unwrap_or_else(|| named("_999"))
    }
}

/// What this user may still write on the disk of a folder, bytes.
fn free_bytes(folder: &Path) -> io::Result<u64> {
    let path = CString::new(folder.as_os_str().as_bytes())?;
    // SAFETY: it holds numbers, for which zero is a value.
    let mut disk: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: the path ends in zero, and both outlive the call.
    if unsafe { libc::statvfs(path.as_ptr(), &mut disk) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_made_and_left_as_it_was_and_one_that_cannot_be_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let inside = folder.path().join("new/recordings");
        Recordings::new(inside.clone(), "control", 4000).check().unwrap();
        assert_eq!(fs::read_dir(&inside).unwrap().count(), 0);
        let file = folder.path().join("file");
        fs::write(&file, []).unwrap();
        assert!(Recordings::new(file.clone(), "control", 4000).check().is_err());
        assert!(
            Recordings::new(file.join("inside"), "control", 4000)
                .check()
                .is_err()
        );
        assert!(free_bytes(&inside).unwrap() > 0);
    }

    #[test]
    fn the_oldest_recordings_of_this_node_make_room_and_nothing_else_is_touched() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name);
        let recordings = Recordings::new(folder.path().to_owned(), "left/control", 4000);
        for name in [
            "mfpo_left.control_1.mcap",
            "mfpo_left.control_2.mcap",
            "mfpo_left.control_3.mcap",
        ] {
            fs::write(file(name), [0; 1300]).unwrap();
        }
        fs::write(file("mfpo_control_0.mcap"), [0; 9000]).unwrap();
        fs::write(file("thesis.mcap"), [0; 9000]).unwrap();
        let next = recordings.next().unwrap();
        assert!(
            !file("mfpo_left.control_1.mcap").exists(),
            "3900 and another 1000 are too much"
        );
        for name in ["mfpo_left.control_2.mcap", "mfpo_control_0.mcap", "thesis.mcap"] {
            assert!(file(name).exists(), "{name}");
        }
        fs::write(&next, []).unwrap();
        let after = recordings.next().unwrap();
        assert!(
            after != next && after > next,
            "{} after {}",
            after.display(),
            next.display()
        );
    }
}
