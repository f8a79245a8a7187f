//! The header of a safetensors file: a JSON object of metadata and of what each tensor is.
//!
//! A header of a megabyte can state half a million values, and a reader that makes a tree of all of them takes fifty times
//! its length. Here what it says of a tensor stays the text that it is in the file until somebody knows that it is as short as
//! one tensor needs, and of the metadata nothing is copied but what a bundle has.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer as _, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::bounds::{MOST_ENTRY_BYTES, MOST_HEADER_BYTES, MOST_TENSORS};
use crate::bundle::{CHECKPOINT_KEY, METADATA_KEY, SAC_POLICY_KEY};
use crate::foreign::OfTrainer;
use crate::signature;

/// Key of the metadata in the header.
const METADATA: &str = "__metadata__";

/// A file's header and what comes after it.
#[derive(Debug)]
pub(crate) struct Header<'a> {
    /// The manifest, a JSON string.
    pub(crate) manifest: Option<&'a str>,
    /// The signature, a JSON string.
    pub(crate) signature: Option<&'a str>,
    /// What else of a trainer the file is.
    pub(crate) of_trainer: Option<OfTrainer>,
    /// Name and JSON of each tensor, in the order of the file; of [`MOST_TENSORS`] at most.
    pub(crate) tensors: Vec<(String, &'a str)>,
    /// How many there are.
    pub(crate) count: usize,
    /// The tensors' bytes.
    pub(crate) data: &'a [u8],
}

impl<'a> Header<'a> {
    /// Reads the header of a file.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub(crate) fn read(bytes: &'a [u8]) -> Result<Self, String> {
        let (length, rest) = bytes
            .split_first_chunk::<8>()
            .ok_or("the length of its header is missing")?;
        let length = u64::from_le_bytes(*length);
        if length > MOST_HEADER_BYTES {
            return Err(format!(
                "the header is {length} bytes long; expected at most {MOST_HEADER_BYTES}"
            ));
        }
        let (text, data) = rest
            .split_at_checked(length as usize)
            .ok_or("the header is longer than the file")?;
        let text = std::str::from_utf8(text).map_err(|error| format!("invalid UTF-8 in header: {error}"))?;
        let mut header = Self {
            manifest: None,
            signature: None,
            of_trainer: None,
            tensors: Vec::new(),
            count: 0,
            data,
        };
        let (mut metadata, mut is_there_twice) = (None, false);
        members(text, |name, value| {
            if name == METADATA {
                is_there_twice |= metadata.replace(value).is_some();
                return;
            }
            header.count += 1;
            if header.count <= MOST_TENSORS {
                header.tensors.push((name, value));
            }
        })?;
        if is_there_twice {
            return Err(format!("the header has {METADATA} twice"));
        }
        if let Some(metadata) = metadata {
            header.read_metadata(metadata)?;
        }
        Ok(header)
    }

    fn read_metadata(&mut self, metadata: &'a str) -> Result<(), String> {
        let mut is_text = true;
        members(metadata, |key, value| {
            is_text &= value.starts_with('"');
            match key.as_str() {
                METADATA_KEY => self.manifest = Some(value),
                signature::METADATA_KEY => self.signature = Some(value),
                CHECKPOINT_KEY => self.of_trainer = Some(OfTrainer::Checkpoint),
                SAC_POLICY_KEY => self.of_trainer = Some(OfTrainer::SacPolicy),
                _ => {}
            }
        })?;
        if is_text {
            return Ok(());
        }
        Err("the metadata holds other values than text".to_owned())
    }

    /// Where the last tensor ends, bytes from where the data begin; `None` where that cannot be told.
    pub(crate) fn end_of_data(&self) -> Option<u64> {
        #[derive(Deserialize)]
        struct Entry {
            data_offsets: [u64; 2],
        }
        if self.count > self.tensors.len() {
            return None;
        }
        let mut last = 0;
        for (_, text) in &self.tensors {
            if text.len() > MOST_ENTRY_BYTES {
                return None;
            }
            let Entry { data_offsets } = serde_json::from_str(text).ok()?;
            last = last.max(data_offsets[1]);
        }
        Some(last)
    }
}

/// The text that a JSON string stands for.
///
/// # Errors
/// What is wrong with the string, in words.
pub(crate) fn text(json: &str) -> Result<String, String> {
    serde_json::from_str(json).map_err(|error| error.to_string())
}

/// Gives `take` the name and the JSON of each member of an object.
fn members<'a>(object: &'a str, take: impl FnMut(String, &'a str)) -> Result<(), String> {
    // Of anything else serde's error would repeat the whole.
    if !object.starts_with('{') {
        return Err("invalid JSON in header: expected an object".to_owned());
    }
    let mut json = serde_json::Deserializer::from_str(object);
    json.deserialize_map(Members(take))
        .and_then(|()| json.end())
        .map_err(|error| format!("invalid JSON in header: {error}"))
}

struct Members<F>(F);

impl<'de, F: FnMut(String, &'de str)> Visitor<'de> for Members<F> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some((name, value)) = map.next_entry::<String, &'de RawValue>()? {
            (self.0)(name, value.get());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(header: &str, data: &[u8]) -> Vec<u8> {
        [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data].concat()
    }

    #[test]
    fn what_a_bundle_has_is_found_and_the_rest_is_left() {
        let bytes = file(
            r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"__metadata__":{"mf\u0070o":"{\"x\":1}","other":"y"}}  "#,
            &[7; 4],
        );
        let header = Header::read(&bytes).unwrap();
        assert_eq!(text(header.manifest.unwrap()).unwrap(), r#"{"x":1}"#);
        assert_eq!((header.signature, header.of_trainer), (None, None));
        assert_eq!((header.count, header.data), (1, &[7; 4][..]));
        assert_eq!(header.tensors[0].0, "a");
        assert_eq!(header.end_of_data(), Some(4));
    }

    #[test]
    fn what_is_no_header_is_refused_in_words() {
        for (header, words) in [
            ("[1]", "expected an object"),
            ("\"text\"", "expected an object"),
            ("{\"a\":1", "invalid JSON"),
            ("{} {}", "invalid JSON"),
            ("{\"__metadata__\":null}", "expected an object"),
            ("{\"__metadata__\":{\"a\":1}}", "other values than text"),
            ("{\"__metadata__\":{},\"__metadata__\":{}}", "twice"),
        ] {
            let told = Header::read(&file(header, &[])).unwrap_err();
            assert!(told.contains(words), "{header}: {told}");
        }
        let told = Header::read(&file("{}", &[])[..9]).unwrap_err();
        assert!(told.contains("longer than the file"), "{told}");
        let told = Header::read(&(MOST_HEADER_BYTES + 1).to_le_bytes()).unwrap_err();
        assert!(told.contains("expected at most 1048576"), "{told}");
    }

    #[test]
    fn of_more_tensors_than_a_bundle_may_have_the_first_are_kept_and_all_are_counted() {
        let names = (0..MOST_TENSORS + 3).map(|i| format!("\"{i}\":{{}}"));
        let text = format!("{{{}}}", names.collect::<Vec<_>>().join(","));
        let bytes = file(&text, &[]);
        let header = Header::read(&bytes).unwrap();
        assert_eq!(
            (header.tensors.len(), header.count),
            (MOST_TENSORS, MOST_TENSORS + 3)
        );
        assert_eq!(header.end_of_data(), None);
    }
}
