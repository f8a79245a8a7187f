//! Who made a bundle: an Ed25519 signature over its digest, which covers the manifest and every weight.
//!
//! It lies beside the manifest in the file's metadata, so that signing changes neither the digest nor what a program without
//! keys sees. [`crate::bundle::open`] refuses a signature that does not fit; whose signatures count is up to
//! [`TrustedKeys`]. Keys are PEM files as `openssl` writes and reads them; a public key is also told as 64 hexadecimal digits.

use std::fmt;
use std::str::FromStr;

use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{DecodePrivateKey, DecodePublicKey, EncodePrivateKey, EncodePublicKey};
use ed25519_dalek::{Signer, VerifyingKey};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Key of the signature in the file's metadata.
pub const METADATA_KEY: &str = "mfpo_signature";
/// What is signed is this text and the digest: a signature means nothing anywhere else.
const CONTEXT: &str = "mfpo policy bundle, digest ";
/// A longer entry is none, bytes: a key and a signature are 192 digits.
const MOST_BYTES: usize = 1024;

/// Why a signature or a key does not count.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SignatureError {
    /// The metadata's entry cannot be read.
    #[error("the signature in the file cannot be read: {0}; copy the bundle again from where it was signed")]
    Unreadable(String),
    /// The signature is not of this content.
    #[error("the signature does not fit the bundle; it was made for another one, or by another key than {0}")]
    Wrong(PublicKey),
    /// There is no signature, and one is wanted.
    #[error(
        "the bundle is not signed; expected a signature by one of the trusted keys ({0}): sign it with `mfpo_train sign`"
    )]
    Unsigned(String),
    /// The signature is of somebody else.
    #[error("the bundle is signed by {signer}; the trusted keys are {trusted}")]
    NotTrusted {
        /// Who signed.
        signer: PublicKey,
        /// Whose signatures count.
        trusted: String,
    },
    /// Not a key.
    #[error("not an Ed25519 {kind} key: {reason}; expected {expected}")]
    Key {
        /// `private` or `public`.
        kind: &'static str,
        /// What is wrong.
        reason: String,
        /// What a key looks like.
        expected: &'static str,
    },
}

/// A key that signs. Keep it secret.
pub struct SigningKey(ed25519_dalek::SigningKey);

impl fmt::Debug for SigningKey {
    /// The public half: the secret one must not get into a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey of {}", self.public())
    }
}

impl SigningKey {
    /// The key that 32 random bytes make.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(ed25519_dalek::SigningKey::from_bytes(seed))
    }

    /// Reads a PEM file's text (PKCS #8).
    ///
    /// # Errors
    /// When the text is not a private Ed25519 key.
    pub fn from_pem(text: &str) -> Result<Self, SignatureError> {
        let key = ed25519_dalek::SigningKey::from_pkcs8_pem(text).map_err(|error| SignatureError::Key {
            kind: "private",
            reason: error.to_string(),
            expected: "a PEM file of `mfpo_train keygen` or of `openssl genpkey -algorithm ed25519`",
        })?;
        Ok(Self(key))
    }

    /// The text of a PEM file (PKCS #8).
    ///
    /// # Errors
    /// When it cannot be encoded.
    pub fn to_pem(&self) -> Result<String, SignatureError> {
        let pem = self.0.to_pkcs8_pem(LineEnding::LF);
        let pem = pem.map_err(|error| SignatureError::Key {
            kind: "private",
            reason: error.to_string(),
            expected: "a key that can be encoded",
        })?;
        Ok(pem.as_str().to_owned())
    }

    /// The other half, which may be known to all.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key().to_bytes())
    }

    /// A signature of a bundle's digest.
    pub(crate) fn sign(&self, digest: &str) -> Signature {
        let signature = self.0.sign(format!("{CONTEXT}{digest}").as_bytes());
        Signature {
            key: self.public().to_string(),
            signature: hex::encode(signature.to_bytes()),
        }
    }
}

/// A key that signatures are checked with: 32 bytes that are known to be a point of the curve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    fn key(&self) -> Result<VerifyingKey, SignatureError> {
        VerifyingKey::from_bytes(&self.0).map_err(|error| public_key_error(error.to_string()))
    }

    /// The text of a PEM file (SPKI).
    ///
    /// # Errors
    /// When it cannot be encoded.
    pub fn to_pem(&self) -> Result<String, SignatureError> {
        let pem = self.key()?.to_public_key_pem(LineEnding::LF);
        pem.map_err(|error| public_key_error(error.to_string()))
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl FromStr for PublicKey {
    type Err = SignatureError;

    /// 64 hexadecimal digits, or the text of a PEM file.
    fn from_str(text: &str) -> Result<Self, SignatureError> {
        let text = text.trim();
        if text.starts_with("-----BEGIN") {
            let key = VerifyingKey::from_public_key_pem(text);
            let key = key.map_err(|error| public_key_error(error.to_string()))?;
            return Ok(Self(key.to_bytes()));
        }
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).map_err(|error| public_key_error(error.to_string()))?;
        let key = Self(bytes);
        key.key().map(|_| key)
    }
}

fn public_key_error(reason: String) -> SignatureError {
    SignatureError::Key {
        kind: "public",
        reason,
        expected: "64 hexadecimal digits or the text of a PEM file",
    }
}

/// A signature as it lies in the file.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Signature {
    /// The public key, hexadecimal.
    key: String,
    /// 64 bytes, hexadecimal.
    signature: String,
}

impl Signature {
    /// Reads the metadata's entry.
    pub(crate) fn parse(text: &str) -> Result<Self, SignatureError> {
        if text.len() > MOST_BYTES {
            let got = text.len();
            return Err(SignatureError::Unreadable(format!(
                "it is {got} bytes long; expected at most {MOST_BYTES}"
            )));
        }
        serde_json::from_str(text).map_err(|error| SignatureError::Unreadable(error.to_string()))
    }

    /// Who signed `digest`.
    pub(crate) fn check(&self, digest: &str) -> Result<PublicKey, SignatureError> {
        let unreadable = |reason: String| SignatureError::Unreadable(reason);
        let key: PublicKey = self.key.parse()?;
        let mut bytes = [0; 64];
        hex::decode_to_slice(&self.signature, &mut bytes).map_err(|error| unreadable(error.to_string()))?;
        let signature = ed25519_dalek::Signature::from_bytes(&bytes);
        let content = format!("{CONTEXT}{digest}");
        match key.key()?.verify_strict(content.as_bytes(), &signature) {
            Ok(()) => Ok(key),
            Err(_) => Err(SignatureError::Wrong(key)),
        }
    }
}

/// Whose signatures count; without any key every bundle does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustedKeys(pub Vec<PublicKey>);

impl TrustedKeys {
    /// Is a bundle signed by `signer` welcome?
    ///
    /// # Errors
    /// When there are trusted keys, and none of them signed.
    pub fn check(&self, signer: Option<PublicKey>) -> Result<(), SignatureError> {
        let trusted = || {
            let keys: Vec<String> = self.0.iter().map(PublicKey::to_string).collect();
            keys.join(", ")
        };
        match signer {
            _ if self.0.is_empty() => Ok(()),
            None => Err(SignatureError::Unsigned(trusted())),
            Some(signer) if self.0.contains(&signer) => Ok(()),
            Some(signer) => Err(SignatureError::NotTrusted {
                signer,
                trusted: trusted(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_seed(&[seed; 32])
    }

    #[test]
    fn a_signature_is_of_one_digest_and_one_key() {
        let signature = key(1).sign("abc");
        assert_eq!(signature.check("abc"), Ok(key(1).public()));
        assert_eq!(
            signature.check("abd"),
            Err(SignatureError::Wrong(key(1).public()))
        );
        let forged = Signature {
            key: key(2).public().to_string(),
            ..signature
        };
        assert_eq!(forged.check("abc"), Err(SignatureError::Wrong(key(2).public())));
    }

    #[test]
    fn a_signature_that_cannot_be_read_is_not_to_be_mended_by_signing() {
        // `sign` opens the bundle first, and would refuse it for the same reason.
        let error = Signature::parse("{").unwrap_err().to_string();
        assert!(error.contains("copy the bundle again"), "{error}");
    }

    #[test]
    fn keys_survive_their_files() {
        let read = SigningKey::from_pem(&key(3).to_pem().unwrap()).unwrap();
        assert_eq!(read.public(), key(3).public());
        let public = key(3).public();
        assert_eq!(public.to_string().parse(), Ok(public));
        assert_eq!(public.to_pem().unwrap().parse(), Ok(public));
        for bad in ["", "12", &"z".repeat(64), "-----BEGIN PUBLIC KEY-----"] {
            let error = bad.parse::<PublicKey>().unwrap_err().to_string();
            assert!(error.contains("expected 64 hexadecimal digits"), "{bad}: {error}");
        }
        assert!(SigningKey::from_pem("nonsense").is_err());
    }

    #[test]
    fn without_trusted_keys_every_bundle_is_welcome_and_with_them_only_theirs() {
        let (ours, theirs) = (key(1).public(), key(2).public());
        let anybody = TrustedKeys::default();
        assert_eq!(anybody.check(None), Ok(()));
        assert_eq!(anybody.check(Some(theirs)), Ok(()));
        let trusted = TrustedKeys(vec![ours]);
        assert_eq!(trusted.check(Some(ours)), Ok(()));
        assert!(matches!(trusted.check(None), Err(SignatureError::Unsigned(_))));
        assert!(matches!(
            trusted.check(Some(theirs)),
            Err(SignatureError::NotTrusted { .. })
        ));
    }
}
