//! What lies in a file that is no whole bundle, in words: what came, what was expected, what to do. Nothing here decides
//! whether a bundle is taken.

use crate::bounds::MOST_HEADER_BYTES;
use crate::header::Header;

/// What people mean to give.
pub(crate) const EXPECTED: &str = "expected a policy bundle, such as last.safetensors of a run";

/// How files begin that are given in place of a bundle, and what they are.
const BEGINNINGS: [(&[u8], &str); 9] = [
    (b"\x89PNG", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"\x89MCAP", "a recording (MCAP)"),
    (b"\x89HDF", "an HDF5 file"),
    (b"PK\x03\x04", "a ZIP archive, as PyTorch's files are"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"\x7fELF", "a program"),
    (b"-----BEGIN", "a key"),
    (
        b"version https://git-lfs",
        "a pointer of Git LFS (git lfs pull fetches the file itself)",
    ),
];
/// So much of a file tells whether it is text, bytes.
const LOOKED_AT: usize = 512;

/// Why `bytes`, which a reader refuses with `error`, are no whole safetensors file.
pub(crate) fn unreadable(bytes: &[u8], error: &str) -> String {
    if let Some(kind) = kind(bytes) {
        return format!("it is {kind}; {EXPECTED}");
    }
    match announced(bytes) {
        Some(announced) if announced != bytes.len() as u64 => {
            format!("its header announces {announced} bytes; copy the bundle again")
        }
        _ => format!("{error}; {EXPECTED}: copy it again, or give another file"),
    }
}

/// What our trainer writes beside bundles as a safetensors file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OfTrainer {
    /// What a run goes on from.
    Checkpoint,
    /// What SAC has learnt.
    SacPolicy,
}

/// Why a safetensors file without a manifest is no bundle.
pub(crate) fn without_manifest(of_trainer: Option<OfTrainer>) -> String {
    match of_trainer {
        Some(OfTrainer::Checkpoint) => {
            "it is the checkpoint of a run; expected a policy bundle: take last.safetensors or best.safetensors in the \
             folder of that run"
                .to_owned()
        }
        Some(OfTrainer::SacPolicy) => format!(
            "it is the policy of a SAC run, which mfpo_train eval measures and no node runs; {EXPECTED} with --algorithm mfpo"
        ),
        None => format!("the key is missing, so that another program wrote the file; {EXPECTED}"),
    }
}

fn kind(bytes: &[u8]) -> Option<&'static str> {
    if bytes.is_empty() {
        return Some("empty");
    }
    let known = BEGINNINGS.iter().find(|(start, _)| bytes.starts_with(start));
    let known = known.map(|(_, kind)| *kind);
    known.or_else(|| is_text(bytes).then_some("text, such as a configuration or metrics"))
}

/// A safetensors file begins with the length of its header, whose upper bytes are 0.
fn is_text(bytes: &[u8]) -> bool {
    let is_of_text = |byte: &u8| byte.is_ascii_graphic() || byte.is_ascii_whitespace() || !byte.is_ascii();
    bytes.iter().take(LOOKED_AT).all(is_of_text)
}

/// Bytes of the whole file as its header states them: its own length, then up to where the last tensor ends. Of a header
/// that is cut itself, its own.
fn announced(bytes: &[u8]) -> Option<u64> {
    let (length, rest) = bytes.split_first_chunk::<8>()?;
    let length = u64::from_le_bytes(*length);
    if length > MOST_HEADER_BYTES || !rest.starts_with(b"{") {
        return None;
    }
    let own = length + 8;
    if (rest.len() as u64) < length {
        return Some(own);
    }
    let end = Header::read(bytes).ok()?.end_of_data()?;
    Some(own.saturating_add(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file whose header states a tensor of 8 bytes.
    fn whole() -> Vec<u8> {
        let header = br#"{"__metadata__":{"a":"b"},"t":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
        let length = (header.len() as u64).to_le_bytes();
        [&length[..], &header[..], &[0; 8]].concat()
    }

    #[test]
    fn what_is_cut_or_grown_is_told_with_the_size_that_its_header_states() {
        let whole = whole();
        let longer = [&whole[..], &[0; 3]].concat();
        for bytes in [&whole[..whole.len() - 1], &longer[..]] {
            assert_eq!(
                unreadable(bytes, "incomplete"),
                format!(
                    "its header announces {} bytes; copy the bundle again",
                    whole.len()
                )
            );
        }
        let header = unreadable(&whole[..20], "invalid header length");
        assert!(
            header.contains(&format!("announces {} bytes", whole.len() - 8)),
            "{header}"
        );
    }

    #[test]
    fn other_files_are_told_by_what_they_are() {
        for (bytes, words) in [
            (&b""[..], "it is empty; expected a policy bundle"),
            (b"\x89PNG\r\n\x1a\n\0\0", "it is a PNG picture"),
            (b"[learner]\ndiscount = 0.9\n", "it is text"),
            (b"{\"kind\":\"update\"}\n", "it is text"),
            (b"-----BEGIN PRIVATE KEY-----\n", "it is a key"),
            (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
            (&[0; 300], "a reason; expected a policy bundle"),
        ] {
            let told = unreadable(bytes, "a reason");
            assert!(
                told.contains(words) && told.contains("last.safetensors of a run"),
                "{told}"
            );
        }
    }
}
