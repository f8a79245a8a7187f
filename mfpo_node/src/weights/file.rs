//! A bundle's file, read without trusting its path: only an ordinary file, and no more of it than a bundle may have.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use mfpo_policy::bundle::MOST_BYTES;
use thiserror::Error;

/// A file is read in parts of this size, bytes: on a kernel that does not preempt itself, whoever shares the core waits for the
/// end of a system call, a control thread with real-time priority too. 53 MB in one call were 27 ms.
const PART: u64 = 256 * 1024;

/// Why a file could not be read.
#[derive(Debug, Error)]
pub enum FileError {
    /// The system says so.
    #[error("cannot read '{}': {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A folder, a pipe, a device.
    #[error("'{}' is no ordinary file; expected a bundle", path.display())]
    NoFile {
        /// What it is not.
        path: PathBuf,
    },
    /// More than any bundle.
    #[error("'{}' is {got} bytes large; expected at most {MOST_BYTES}", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size, bytes.
        got: u64,
    },
}

/// Reads a bundle's file.
///
/// # Errors
/// When it is no ordinary file, too large, or cannot be read.
pub fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    let unreadable = |source| FileError::Unreadable {
        path: path.to_owned(),
        source,
    };
    // Without O_NONBLOCK a pipe that nobody writes to would be waited for.
    let mut options = OpenOptions::new();
    let file = options.read(true).custom_flags(libc::O_NONBLOCK).open(path);
    let mut file = file.map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(FileError::NoFile {
            path: path.to_owned(),
        });
    }
    let too_large = |got| FileError::TooLarge {
        path: path.to_owned(),
        got,
    };
    if metadata.len() > MOST_BYTES as u64 {
        return Err(too_large(metadata.len()));
    }
    let mut bytes = Vec::with_capacity(metadata.len() as usize);
    // It may grow while it is read.
    while bytes.len() <= MOST_BYTES {
        if file
            .by_ref()
            .take(PART)
            .read_to_end(&mut bytes)
            .map_err(unreadable)?
            == 0
        {
            return Ok(bytes);
        }
    }
    Err(too_large(bytes.len() as u64))
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn only_an_ordinary_file_of_a_bundles_size_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bundle");
        std::fs::write(&path, b"abc").unwrap();
        assert_eq!(read(&path).unwrap(), b"abc");
        // Sparse: it takes no room.
        File::create(&path)
            .unwrap()
            .set_len(MOST_BYTES as u64 + 1)
            .unwrap();
        let error = read(&path).unwrap_err().to_string();
        assert!(
            error.contains(&(MOST_BYTES + 1).to_string()) && error.contains("at most"),
            "{error}"
        );
        let error = read(folder.path()).unwrap_err().to_string();
        assert!(error.contains("no ordinary file"), "{error}");
        assert!(matches!(
            read(Path::new("/dev/zero")),
            Err(FileError::NoFile { .. })
        ));
        let error = read(&folder.path().join("nothing")).unwrap_err().to_string();
        assert!(error.contains("No such file"), "{error}");
    }

    #[test]
    fn a_pipe_that_nobody_writes_to_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&path).status();
        assert!(made.unwrap().success());
        assert!(matches!(read(&path), Err(FileError::NoFile { .. })));
    }
}
