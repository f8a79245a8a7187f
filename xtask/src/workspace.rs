//! Where this repository and what the set-up puts into it lie.

use std::cell::RefCell;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result};

/// Name of the folder that the set-up makes in a repository.
pub const DEPS: &str = ".deps";

/// The repository's folder.
pub struct Workspace {
    root: PathBuf,
    lock: RefCell<Option<File>>,
}

impl Workspace {
    /// The repository that this program was built from.
    pub fn find() -> Result<Self> {
        let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
        let root = xtask.parent().context("xtask lies outside of a workspace")?;
        Self::at(root)
    }

    /// The repository in folder `root`; links in it are resolved, so that the same clone has one name.
    pub fn at(root: &Path) -> Result<Self> {
        let root = root
            .canonicalize()
            .with_context(|| format!("{} is gone; run cargo xtask from the clone", root.display()))?;
        Ok(Self {
            root,
            lock: RefCell::new(None),
        })
    }

    /// The repository's folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What the set-up makes; ignored by git.
    pub fn deps(&self) -> PathBuf {
        self.root.join(DEPS)
    }

    /// The sources of package mfpo_msgs.
    pub fn messages(&self) -> PathBuf {
        self.root.join("msg")
    }

    /// Waits until no other set-up is at work here, and keeps others waiting until [`Workspace::unlock`].
    pub fn lock(&self) -> Result<()> {
        let deps = self.deps();
        fs::create_dir_all(&deps).with_context(|| format!("cannot make {}", deps.display()))?;
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(deps.join("lock"))
            .context("cannot make the lock of the set-up")?;
        match file.try_lock() {
            Ok(()) => (),
            Err(TryLockError::WouldBlock) => {
                eprintln!("another set-up is at work in {}; waiting for it", deps.display());
                file.lock().context("cannot wait for the other set-up")?;
            }
            Err(TryLockError::Error(error)) => return Err(error).context("cannot lock the set-up"),
        }
        self.lock.replace(Some(file));
        Ok(())
    }

    /// Lets the next set-up go on.
    pub fn unlock(&self) {
        self.lock.replace(None);
    }

    /// An empty standard input for programs that change .deps. It is the lock itself, which thus stays until the
    /// last of them has ended, even when this process is killed and they are not.
    pub fn stdin(&self) -> Stdio {
        let file = self.lock.borrow().as_ref().and_then(|file| file.try_clone().ok());
        file.map_or_else(Stdio::null, Stdio::from)
    }

    /// Where programs that the set-up runs leave what they print.
    pub fn log(&self, name: &str) -> PathBuf {
        self.deps().join("log").join(format!("{name}.log"))
    }
}
