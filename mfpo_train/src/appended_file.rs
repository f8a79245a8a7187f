//! A file that a run adds to until its end, also while the disk takes nothing: what it does not take waits in memory, in
//! its order, and follows when there is room. What the file holds already is never touched.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

/// A file, and what the disk has not taken yet.
#[derive(Debug)]
pub struct AppendedFile {
    file: File,
    /// Named where the disk is full.
    path: PathBuf,
    /// A report is some hundred bytes, so that days of a full disk are a few megabytes.
    waiting: Vec<u8>,
    /// Bytes that the file holds.
    written: u64,
    /// Something waits, and it was told.
    told: bool,
}

impl AppendedFile {
    /// An empty file in the place of what is at `path`.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn create(path: &Path) -> io::Result<Self> {
        Ok(Self::after(File::create(path)?, path, 0))
    }

    /// Goes on at the end of `file`, which lies at `path` and holds `written` bytes.
    pub fn after(file: File, path: &Path, written: u64) -> Self {
        Self {
            file,
            path: path.to_owned(),
            waiting: Vec::new(),
            written,
            told: false,
        }
    }

    /// Bytes in the file, once all of them are on the disk.
    ///
    /// # Errors
    /// When the disk does not take them; what it does not take waits on.
    pub fn sync(&mut self) -> io::Result<u64> {
        self.hand_over()?;
        self.file.sync_data()?;
        Ok(self.written)
    }

    /// Writes into `file` from now on, and returns the one before.
    #[cfg(test)]
    pub(crate) fn redirect(&mut self, file: File) -> File {
        std::mem::replace(&mut self.file, file)
    }

    fn hand_over(&mut self) -> io::Result<()> {
        let mut taken = 0;
        let result = loop {
            if taken == self.waiting.len() {
                break Ok(());
            }
            match self.file.write(&self.waiting[taken..]) {
                Ok(0) => break Err(ErrorKind::WriteZero.into()),
                Ok(bytes) => taken += bytes,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => break Err(error),
            }
        };
        self.waiting.drain(..taken);
        self.written += taken as u64;
        result
    }
}

impl Write for AppendedFile {
    /// Takes everything; [`Write::flush`] hands it to the disk.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.waiting.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    /// Never fails: a disk that takes nothing is told once, and once more when everything is there.
    fn flush(&mut self) -> io::Result<()> {
        let result = self.hand_over();
        let path = self.path.display();
        match result {
            Ok(()) if self.told => tracing::info!("{path} is complete again"),
            Err(error) if !self.told => tracing::warn!(
                "cannot write {path}: {error}; the run goes on, and what is missing follows once there is room: free some \
                 space"
            ),
            _ => {}
        }
        self.told = !self.waiting.is_empty();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;

    use super::*;

    #[test]
    fn what_a_full_disk_does_not_take_follows_in_its_order() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lines");
        let mut lines = AppendedFile::create(&path).unwrap();
        let line = |lines: &mut AppendedFile, text: &str| {
            lines.write_all(text.as_bytes()).unwrap();
            lines.flush().unwrap();
        };
        line(&mut lines, "one\n");
        // Linux's own full disk.
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let real = lines.redirect(full);
        line(&mut lines, "two\n");
        line(&mut lines, "three\n");
        assert!(lines.sync().is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "one\n");
        lines.redirect(real);
        assert_eq!(lines.sync().unwrap(), 14);
        line(&mut lines, "four\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "one\ntwo\nthree\nfour\n");
    }
}
