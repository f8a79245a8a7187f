//! Where this repository and what the set-up puts into it lie.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The repository's folder.
pub struct Workspace {
    root: PathBuf,
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
        Ok(Self { root })
    }

    /// The repository's folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What the set-up makes; ignored by git.
    pub fn deps(&self) -> PathBuf {
        self.root.join(".deps")
    }

    /// The sources of package mfpo_msgs.
    pub fn messages(&self) -> PathBuf {
        self.root.join("msg")
    }

    /// Where programs that the set-up runs leave what they print.
    pub fn log(&self, name: &str) -> PathBuf {
        self.deps().join("log").join(format!("{name}.log"))
    }
}
