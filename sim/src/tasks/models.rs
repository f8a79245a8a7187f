//! Where the model files of Gymnasium and the DeepMind Control Suite are.

use std::path::{Path, PathBuf};

use crate::SimError;

/// The variable that names the folder with `gymnasium/` and `dm_control/`.
pub const VARIABLE: &str = "MFPO_MODELS";

/// Path of `file` of `suite` (`gymnasium` or `dm_control`).
///
/// The folder is that of [`VARIABLE`] now, else when this was compiled, else `.deps/models` of the repository.
///
/// # Errors
/// [`SimError::MissingModel`].
pub fn path(suite: &str, file: &str) -> Result<PathBuf, SimError> {
    let repository = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../.deps/models");
    let folder = std::env::var_os(VARIABLE).map(PathBuf::from);
    let folder = folder.or_else(|| option_env!("MFPO_MODELS").map(PathBuf::from));
    let path = folder.unwrap_or_else(repository).join(suite).join(file);
    if path.is_file() {
        return Ok(path);
    }
    Err(SimError::MissingModel {
        path: path.display().to_string(),
    })
}
