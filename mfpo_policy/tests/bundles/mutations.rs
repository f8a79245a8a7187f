//! Changes that know what a bundle looks like: of the file, of its header, of the manifest in it, of the signature, of tensors
//! and their numbers. Some leave a file that is sound in all but what it says; those get furthest.

use rand::seq::IndexedRandom;
use rand::{Rng, RngExt};
use rand_chacha::ChaCha8Rng;
use serde_json::{Map, Value, json};

/// Numbers that have been trouble somewhere.
const NUMBERS: [f64; 9] = [0.0, -0.0, -1.0, 1e-320, 1e30, 3.5e38, 1e308, 0.1, 65_537.0];
const COUNTS: [u64; 14] = [
    0,
    1,
    2,
    3,
    7,
    64,
    1000,
    1_000_000,
    u32::MAX as u64,
    1 << 33,
    1 << 53,
    1 << 62,
    1 << 63,
    u64::MAX,
];
const DTYPES: [&str; 7] = ["F64", "F16", "BF16", "I8", "BOOL", "F8_E4M3", "F99"];
const WEIGHTS: [f32; 7] = [
    f32::NAN,
    f32::INFINITY,
    f32::NEG_INFINITY,
    f32::MAX,
    1e-45,
    -0.0,
    1e20,
];

/// A bundle taken apart.
pub struct Parts {
    /// Metadata and tensors, by name.
    pub header: Map<String, Value>,
    /// The tensors' bytes.
    pub data: Vec<u8>,
}

impl Parts {
    pub fn of(bytes: &[u8]) -> Option<Self> {
        let length = usize::try_from(u64::from_le_bytes(*bytes.first_chunk()?)).ok()?;
        let end = length.checked_add(8)?;
        let header = serde_json::from_slice(bytes.get(8..end)?).ok()?;
        let data = bytes[end..].to_vec();
        Some(Self { header, data })
    }

    pub fn put_together(&self) -> Vec<u8> {
        let header = serde_json::to_vec(&self.header).unwrap();
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header);
        bytes.extend(&self.data);
        bytes
    }

    /// Changes the JSON that lies as text under a key of the metadata.
    pub fn within(&mut self, key: &str, change: impl FnOnce(&mut Value)) {
        let Some(text) = self
            .header
            .get_mut("__metadata__")
            .and_then(|metadata| metadata.get_mut(key))
        else {
            return;
        };
        let Some(mut value) = text.as_str().and_then(|t| serde_json::from_str(t).ok()) else {
            return;
        };
        change(&mut value);
        *text = Value::String(value.to_string());
    }

    fn tensors(&self) -> Vec<String> {
        let names = self.header.keys().filter(|name| *name != "__metadata__");
        names.cloned().collect()
    }
}

/// `bytes` with one or two changes; `None` where they are nothing like a bundle.
pub fn mutated(bytes: &[u8], rng: &mut ChaCha8Rng) -> Option<Vec<u8>> {
    let mut parts = Parts::of(bytes)?;
    for _ in 0..rng.random_range(1..=2) {
        match rng.random_range(0..8) {
            0..3 => parts.within("mfpo", |manifest| change_json(manifest, rng)),
            3 => parts.within("mfpo_signature", |signature| change_json(signature, rng)),
            4 => change_entry(&mut parts, rng),
            5 => resize(&mut parts, rng),
            6 => change_weight(&mut parts, rng),
            _ => {
                let mut header = Value::Object(std::mem::take(&mut parts.header));
                change_json(&mut header, rng);
                if let Value::Object(header) = header {
                    parts.header = header;
                }
            }
        }
    }
    let mut bytes = parts.put_together();
    if rng.random_bool(0.2) {
        change_file(&mut bytes, rng);
    }
    Some(bytes)
}

/// Changes one value, somewhere in the tree.
fn change_json(value: &mut Value, rng: &mut ChaCha8Rng) {
    match value {
        Value::Object(map) if !map.is_empty() && rng.random_bool(0.9) => {
            let keys: Vec<String> = map.keys().cloned().collect();
            let Some(key) = keys.choose(rng) else { return };
            match rng.random_range(0..12) {
                0 => drop(map.remove(key)),
                1 => drop(map.insert(format!("{key}2"), json!([1, {"a": null}]))),
                _ => change_json(&mut map[key.as_str()], rng),
            }
        }
        Value::Array(list) if !list.is_empty() && rng.random_bool(0.9) => {
            let index = rng.random_range(0..list.len());
            match rng.random_range(0..8) {
                0 => drop(list.remove(index)),
                1 => list.push(list[index].clone()),
                2 => {
                    let most = 100_000 / list[index].to_string().len();
                    let count = *[40, 2_000].choose(rng).unwrap_or(&40);
                    list.resize(list.len().max(count.min(most)), list[index].clone());
                }
                _ => change_json(&mut list[index], rng),
            }
        }
        _ => *value = odd_value(value, rng),
    }
}

/// A value that may take the place of another one; mostly of its own type, so that it gets past the reader.
fn odd_value(value: &Value, rng: &mut ChaCha8Rng) -> Value {
    let number = |rng: &mut ChaCha8Rng| match rng.random_bool(0.5) {
        true => json!(COUNTS.choose(rng)),
        false => json!(NUMBERS.choose(rng)),
    };
    match value {
        Value::Number(_) if rng.random_bool(0.9) => number(rng),
        Value::String(text) if rng.random_bool(0.9) => match rng.random_range(0..4) {
            0 => json!(""),
            1 => json!(text.repeat(1 + 4_000 / text.len().max(1))),
            2 => json!("\u{0}\n\u{202e}{}"),
            _ => json!(format!("{text}x")),
        },
        Value::Bool(truth) if rng.random_bool(0.9) => json!(!truth),
        _ => match rng.random_range(0..5) {
            0 => Value::Null,
            1 => json!([]),
            2 => json!({}),
            3 => (0..120).fold(json!(1), |inner, _| json!([inner])),
            _ => number(rng),
        },
    }
}

/// Changes what the header says of one tensor, and not what is there.
fn change_entry(parts: &mut Parts, rng: &mut ChaCha8Rng) {
    let Some(name) = parts.tensors().choose(rng).cloned() else {
        return;
    };
    let entry = parts.header[&name].clone();
    let Some(changed) = parts.header.get_mut(&name).filter(|entry| entry.is_object()) else {
        return;
    };
    match rng.random_range(0..6) {
        0 => changed["dtype"] = json!(DTYPES.choose(rng)),
        1 => changed["shape"] = json!([COUNTS.choose(rng), COUNTS.choose(rng)]),
        2 => changed["shape"] = json!([0, 1u64 << 62, 1u64 << 62]),
        3 => changed["data_offsets"] = json!([COUNTS.choose(rng), COUNTS.choose(rng)]),
        4 => drop(parts.header.remove(&name)),
        _ => drop(parts.header.insert(format!("{name}/more"), entry)),
    }
}

/// Gives one tensor another shape, with as many numbers as that needs, and moves the others along.
fn resize(parts: &mut Parts, rng: &mut ChaCha8Rng) {
    let Some(name) = parts.tensors().choose(rng).cloned() else {
        return;
    };
    let range = |entry: &Value| {
        let at = |i: usize| entry["data_offsets"][i].as_u64().unwrap_or(0) as usize;
        (at(0), at(1))
    };
    let (start, end) = range(&parts.header[&name]);
    if start > end || end > parts.data.len() {
        return;
    }
    let rank = rng.random_range(0..4);
    let shape: Vec<usize> = (0..rank)
        .map(|_| *[0, 1, 2, 5, 7, 4_000].choose(rng).unwrap_or(&1))
        .collect();
    let size = 4 * shape.iter().product::<usize>();
    if size > 1 << 20 {
        return;
    }
    parts.data.splice(start..end, vec![0x3c; size]);
    let moved = |at: usize| {
        if at >= end {
            (at - end).saturating_add(start + size)
        } else {
            at
        }
    };
    for other in parts.tensors() {
        if !parts.header[&other].is_object() {
            continue;
        }
        let (from, to) = range(&parts.header[&other]);
        parts.header[&other]["data_offsets"] = json!([moved(from), moved(to)]);
    }
    parts.header[&name] = json!({"dtype": "F32", "shape": shape, "data_offsets": [start, start + size]});
}

fn change_weight(parts: &mut Parts, rng: &mut ChaCha8Rng) {
    let count = parts.data.len() / 4;
    if count == 0 {
        return;
    }
    for _ in 0..rng.random_range(1..20) {
        let at = 4 * rng.random_range(0..count);
        let weight = *WEIGHTS.choose(rng).unwrap_or(&0.0);
        parts.data[at..at + 4].copy_from_slice(&weight.to_le_bytes());
    }
}

/// Damages the file without regard to what it holds.
fn change_file(bytes: &mut Vec<u8>, rng: &mut ChaCha8Rng) {
    let at = rng.random_range(0..bytes.len());
    match rng.random_range(0..6) {
        0 => bytes.truncate(at),
        1 => bytes.extend_from_within(..at),
        2 => drop(bytes.splice(at..at, [b'"', b'[', b'{', b'\\'])),
        3 => {
            let length = *COUNTS.choose(rng).unwrap_or(&0);
            bytes.splice(..8, length.to_le_bytes());
        }
        _ => (0..rng.random_range(1..9)).for_each(|_| {
            let at = rng.next_u64() as usize % bytes.len();
            bytes[at] ^= 1 << rng.random_range(0..8);
        }),
    }
}
