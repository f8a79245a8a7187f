//! `keygen`, `sign`, `verify`: who vouches for a bundle.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, ensure};
use mfpo_policy::bundle;
use mfpo_policy::signature::{PublicKey, SigningKey, TrustedKeys};
use rand::Rng;

use crate::cli::print;
use crate::eval::{open_bundle, read_bundle};
use crate::publish::write_atomically;

/// Permission of group and others to read a file.
const READ_BY_OTHERS: u32 = 0o044;

/// Where a new key goes.
#[derive(clap::Args)]
pub struct KeygenArgs {
    /// File of the private key, which only you can read then; the public key goes into FILE.pub
    file: PathBuf,
}

/// What to sign.
#[derive(clap::Args)]
pub struct SignArgs {
    /// The bundle, a safetensors file
    bundle: PathBuf,
    /// The private key, as keygen made it
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Where the signed bundle goes [default: in place of the bundle]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// What to check.
#[derive(clap::Args)]
pub struct VerifyArgs {
    /// The bundle, a safetensors file
    bundle: PathBuf,
    /// A public key whose signature counts: 64 hexadecimal digits, or a file of keygen; may be repeated
    #[arg(long = "trust", value_name = "KEY")]
    trusted: Vec<String>,
}

/// Makes a key that did not exist before.
///
/// # Errors
/// When one of the files exists or cannot be written; no new file is left then.
pub fn keygen(args: &KeygenArgs) -> anyhow::Result<()> {
    let mut seed = [0; 32];
    rand::rng().fill_bytes(&mut seed);
    let key = SigningKey::from_seed(&seed);
    let public = public_file(&args.file);
    // Both before either is written: half a pair is of no use, and in the way of the next.
    for file in [&args.file, &public] {
        ensure!(
            !file.exists(),
            "{} exists already; a key is never overwritten: give another name",
            file.display()
        );
    }
    let (private_pem, public_pem) = (key.to_pem()?, key.public().to_pem()?);
    write_new(&args.file, &private_pem, 0o600)?;
    if let Err(error) = write_new(&public, &public_pem, 0o644) {
        take_back(&args.file);
        return Err(error.context("no key was made"));
    }
    print(&format!(
        "private key  {} (keep it secret)\npublic key   {}\n             {}\n",
        args.file.display(),
        public.display(),
        key.public()
    ))
}

/// Signs a bundle.
///
/// # Errors
/// When key or bundle cannot be read, or the bundle is not valid.
pub fn sign(args: &SignArgs) -> anyhow::Result<()> {
    let key = read_key(&args.key)?;
    let bytes = read_bundle(&args.bundle)?;
    let signed =
        bundle::sign(&bytes, &key).with_context(|| format!("{} is refused", args.bundle.display()))?;
    let out = args.out.as_ref().unwrap_or(&args.bundle);
    write_atomically(out, &signed).with_context(|| format!("cannot write {}", out.display()))?;
    print(&format!("{} signed by {}\n", out.display(), key.public()))
}

/// Says who signed a bundle, and whether that counts.
///
/// # Errors
/// When the bundle is not valid, or keys are trusted and none of them signed it.
pub fn verify(args: &VerifyArgs) -> anyhow::Result<()> {
    let bundle = open_bundle(&args.bundle)?;
    let trusted: Vec<PublicKey> = args
        .trusted
        .iter()
        .map(|text| read_public_key(text))
        .collect::<anyhow::Result<_>>()?;
    TrustedKeys(trusted)
        .check(bundle.signer())
        .with_context(|| format!("{} is refused", args.bundle.display()))?;
    let signer = bundle.signer();
    let signer = signer.map_or_else(|| "nobody".to_owned(), |key| key.to_string());
    print(&format!(
        "{} is whole, signed by {signer}\n",
        args.bundle.display()
    ))
}

/// Reads a private key, and warns where others can read it as well: they can sign for a robot, too.
///
/// # Errors
/// When the file cannot be read or holds no key.
pub fn read_key(file: &Path) -> anyhow::Result<SigningKey> {
    let shown = file.display();
    let text = fs::read_to_string(file).with_context(|| format!("cannot read the key {shown}"))?;
    let key = SigningKey::from_pem(&text).with_context(|| format!("{shown} is refused"))?;
    let mode = fs::metadata(file).map_or(0, |data| data.permissions().mode());
    if mode & READ_BY_OTHERS != 0 {
        tracing::warn!(
            "others can read the private key {shown}, and sign with it; keep it to yourself: chmod 600 {shown}"
        );
    }
    Ok(key)
}

/// A public key in words, or in a file.
fn read_public_key(text: &str) -> anyhow::Result<PublicKey> {
    if !Path::new(text).is_file() {
        return text
            .parse()
            .with_context(|| format!("--trust {text}: neither a file nor a key"));
    }
    let content = fs::read_to_string(text).with_context(|| format!("cannot read {text}"))?;
    content
        .parse()
        .with_context(|| format!("the key in {text} is refused"))
}

fn public_file(private: &Path) -> PathBuf {
    let mut name = private.as_os_str().to_owned();
    name.push(".pub");
    name.into()
}

/// Removes a file that this program has just made; what cannot be removed is told.
fn take_back(path: &Path) {
    if let Err(error) = fs::remove_file(path) {
        tracing::warn!("cannot remove {}, which is of no use: {error}", path.display());
    }
}

/// Writes a file that must not exist; where that fails, there is none.
fn write_new(path: &Path, text: &str, mode: u32) -> anyhow::Result<()> {
    let mut options = OpenOptions::new();
    let file = options.write(true).create_new(true).mode(mode).open(path);
    let mut file = file.with_context(|| format!("cannot make {}", path.display()))?;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    written.map_err(|error| {
        take_back(path);
        anyhow!(error).context(format!("cannot write {}", path.display()))
    })
}
