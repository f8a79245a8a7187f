//! The header of a safetensors file: a JSON object of metadata and of what each tensor is.
//!
//! A header of a megabyte can state half a million values, and a reader that makes a tree of all of them takes fifty times
//! its length. Here names, values and what it says of a tensor stay the texts that they are in the file: none is copied before
//! somebody knows that it is as short as a bundle needs, and none is unescaped into more memory than it takes in the file.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer as _, Error as _, MapAccess, Visitor};
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
    /// Name, a JSON string, and JSON of each tensor, in the order of the file; of [`MOST_TENSORS`] at most.
    pub(crate) tensors: Vec<(&'a str, &'a str)>,
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
            if is(name, METADATA)? {
                is_there_twice |= metadata.replace(value).is_some();
                return Ok(());
            }
            header.count += 1;
            if header.count <= MOST_TENSORS {
                header.tensors.push((name, value));
            }
            Ok(())
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
        members(metadata, |key, value| {
            if !value.starts_with('"') {
                return Err("the metadata holds other values than text".to_owned());
            }
            // Any other reader refuses a text that stands for none, under whatever key.
            pieces(value, |_| {})?;
            if is(key, METADATA_KEY)? {
                self.manifest = Some(value);
            } else if is(key, signature::METADATA_KEY)? {
                self.signature = Some(value);
            } else if is(key, CHECKPOINT_KEY)? {
                self.of_trainer = Some(OfTrainer::Checkpoint);
            } else if is(key, SAC_POLICY_KEY)? {
                self.of_trainer = Some(OfTrainer::SacPolicy);
            }
            Ok(())
        })
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

/// The text that a JSON string stands for, in as much memory as the string takes.
///
/// # Errors
/// What is wrong with the string, in words.
pub(crate) fn text(json: &str) -> Result<String, String> {
    let mut text = String::with_capacity(json.len());
    pieces(json, |piece| text.push_str(piece))?;
    Ok(text)
}

/// Does a JSON string stand for this word?
fn is(json: &str, word: &str) -> Result<bool, String> {
    let mut left = Some(word);
    pieces(json, |piece| {
        left = left.and_then(|left| left.strip_prefix(piece))
    })?;
    Ok(left == Some(""))
}

/// Gives `take` the text that a JSON string stands for, piece by piece, so that nobody needs a copy of it.
fn pieces(json: &str, mut take: impl FnMut(&str)) -> Result<(), String> {
    let inside = json.strip_prefix('"').and_then(|json| json.strip_suffix('"'));
    let mut rest = inside.ok_or("expected a text")?;
    while let Some((plain, escape)) = rest.split_once('\\') {
        take(plain);
        let (character, after) =
            unescaped(escape).ok_or("a text has an escape that stands for no character")?;
        take(character.encode_utf8(&mut [0; 4]));
        rest = after;
    }
    take(rest);
    Ok(())
}

/// The character that an escape stands for, whose backslash is gone, and what comes after it.
fn unescaped(escape: &str) -> Option<(char, &str)> {
    let mut characters = escape.chars();
    let character = match characters.next()? {
        same @ ('"' | '\\' | '/') => same,
        'b' => '\u{8}',
        'f' => '\u{c}',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'u' => return of_units(characters.as_str()),
        _ => return None,
    };
    Some((character, characters.as_str()))
}

/// The same of a unit of UTF-16, or of two where the first is half a character.
fn of_units(digits: &str) -> Option<(char, &str)> {
    let (first, rest) = unit(digits)?;
    if let Some(character) = char::from_u32(first.into()) {
        return Some((character, rest));
    }
    let (second, rest) = unit(rest.strip_prefix("\\u")?)?;
    let character = char::decode_utf16([first, second]).next()?.ok()?;
    Some((character, rest))
}

/// The number that four hexadecimal digits make.
fn unit(digits: &str) -> Option<(u16, &str)> {
    let (digits, rest) = digits.split_at_checked(4)?;
    let are_digits = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    let unit = are_digits.then(|| u16::from_str_radix(digits, 16).ok())??;
    Some((unit, rest))
}

/// Gives `take` the name, a JSON string, and the JSON of each member of an object, until it refuses one.
fn members<'a>(
    object: &'a str,
    take: impl FnMut(&'a str, &'a str) -> Result<(), String>,
) -> Result<(), String> {
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

impl<'de, F: FnMut(&'de str, &'de str) -> Result<(), String>> Visitor<'de> for Members<F> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some((name, value)) = map.next_entry::<&'de RawValue, &'de RawValue>()? {
            (self.0)(name.get(), value.get()).map_err(A::Error::custom)?;
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
        assert_eq!(header.tensors[0].0, "\"a\"");
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
            ("{\"__metadata__\":{},\"__met\\u0061data__\":{}}", "twice"),
            (
                "{\"__metadata__\":{\"a\":\"\\ud800\"}}",
                "stands for no character",
            ),
            ("{\"\\ud800\":{}}", "stands for no character"),
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
    fn a_text_is_what_serde_reads_in_no_more_memory_than_its_json() {
        for json in [
            r#""""#,
            r#""plain""#,
            r#""\"\\\/\b\f\n\r\t""#,
            r#""\u0061\u00e9\u20AC z\ud83d\ude00""#,
            r#""{\"a\":[1,\"\\u0061\"]}""#,
            // Half of a character, its other half missing, before it, or something else.
            r#""\ud83d""#,
            r#""\ud83d\n""#,
            r#""\ude00\ud83d""#,
            r#""\ud83d\u0061""#,
            // Not four digits.
            r#""\u+061""#,
            r#""\u00""#,
            r#""\x""#,
            "1",
        ] {
            let read = text(json).ok();
            assert_eq!(read, serde_json::from_str::<String>(json).ok(), "{json}");
            assert!(read.is_none_or(|text| text.capacity() <= json.len()), "{json}");
        }
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
