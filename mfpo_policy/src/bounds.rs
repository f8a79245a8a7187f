//! What a bundle may ask for. A file can be small and yet name a network that fills the memory or an action that takes
//! minutes; here everything has a largest size, far above what any policy needs, so that whoever opens a bundle knows what
//! that costs: [`most_for_opening`] for files of whatever bytes, in which nothing is packed or padded yet, and
//! [`most_for_sampler`] in addition for a bundle that was taken, in layers as the processor wants them.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::bundle::{BundleError, MOST_STEPS};
use crate::kernel::{MOST_ROWS, padded};
use crate::manifest::Manifest;
use crate::sampler::{ActionSampler, PolicyNetworks};

/// A longer header - manifest, signature, names of tensors - is refused before it is read, bytes. That of
/// launch/policies/swing_arm.safetensors, three networks of three layers, has 6424.
pub(crate) const MOST_HEADER_BYTES: u64 = 1 << 20;
/// Most tensors. Three networks of L layers have 12 L + 16, those of three layers 52.
pub(crate) const MOST_TENSORS: usize = 512;
/// Longest name of a tensor, bytes: 'actor/TimestepEmbedder_0/FourierFeatures_0/kernel' has 49.
const MOST_TENSOR_NAME_BYTES: usize = 64;
/// Longest JSON that says what a tensor is, bytes: type, two sizes and two ends take about 100.
pub(crate) const MOST_ENTRY_BYTES: usize = 512;
/// Longest text or number in a manifest, bytes: an error may repeat it, and a character may take six there.
const MOST_WORD_BYTES: usize = 4096;
/// Deepest that objects and lists of a manifest lie in each other: serde_json goes no further where it reads them, but where
/// it skips them it does, and remembers each. A robot's have 5.
const MOST_DEPTH: usize = 128;
/// Longest JSON of a task's options, bytes.
const MOST_OPTIONS_BYTES: usize = 2048;
/// Most joints of a robot.
const MOST_JOINTS: usize = 1 << 10;
/// Longest run id or name of a robot or task, bytes: they are told in every status.
const MOST_NAME_BYTES: usize = 256;
/// Most components of an observation.
const MOST_OBSERVATION: usize = 1 << 16;
/// Most components of an action.
const MOST_ACTION: usize = 1 << 10;
/// Most golden probes: each is computed before the policy acts.
const MOST_PROBES: usize = 64;
/// Most numbers that a sampler keeps for its steps or computes them from.
const MOST_STEP_NUMBERS: usize = 1 << 20;
/// Most multiplications for one action: about a second.
const MOST_MULTIPLICATIONS: usize = 1 << 31;
/// Widest layer. Two layers of this width alone would not fit into the largest file.
const MOST_WIDTH: usize = 1 << 14;

/// Memory that opening takes for each tensor at most, whatever its size, bytes: up to four copies of its name, and three times
/// as much for its shape, the tensor itself and the entries of maps.
const TENSOR_BYTES: usize = 16 * MOST_TENSOR_NAME_BYTES;
/// A tensor takes more than this in the file, bytes: `"":{"dtype":"F32","shape":[],"data_offsets":[0,4]},` alone is 51, and what
/// is no object is refused before it is read: serde would also take a list, which is shorter by the names.
const LEAST_TENSOR_BYTES: usize = 48;
/// The same for each byte of a task's options: of five, `{"":}`, JSON makes a map of its own, whose node has room for eleven
/// entries, 632 bytes; and the text is there once more.
const OPTION_BYTES: usize = 144;
/// The same for the longest list while it grows by a quarter, beyond twice its JSON: the memory that it leaves, five quarters
/// of that, and two bytes of JSON for each number. Objects take no more: of joints there are few, and terms, of which the header
/// may be full, have 40 bytes each of 43 or more, which is 2.1 times their JSON while they grow.
const LIST_BYTES: usize = MOST_OBSERVATION * size_of::<f32>();
/// The same for an error that repeats a word: six bytes for one, in a text that grows as a list does.
const ERROR_BYTES: usize = 3 * 6 * MOST_WORD_BYTES;
/// The same for the buffer that is hashed from, and for the room that lists begin with.
const BUFFER_BYTES: usize = 16 << 10;

/// The most memory that opening a file of `size` bytes takes at the same time, bytes, beyond the file's own.
///
/// While the manifest is read that is its text once, what it says, which may be twice as long, and a list that grows. By the
/// time the weights are copied, once, the text is gone: they and the manifest are `size` and the header once more. To either
/// comes what the names and shapes of tensors, a task's options and an error take. That is `size` and at most 3.25 MiB, and for
/// a file of 2.25 MiB or more `size` and at most 2 MiB.
pub const fn most_for_opening(size: usize) -> usize {
    let header = smaller(size, MOST_HEADER_BYTES as usize);
    let reading = 3 * header + smaller(3 * size, LIST_BYTES);
    let tensors = TENSOR_BYTES * smaller(size / LEAST_TENSOR_BYTES, MOST_TENSORS);
    let options = OPTION_BYTES * smaller(size, MOST_OPTIONS_BYTES);
    larger(reading, size + header) + tensors + options + ERROR_BYTES + BUFFER_BYTES
}

/// Memory that layers are computed in: two buffers for the actor, and two that the critics share.
const SCRATCH_BYTES: usize = 2 * 2 * MOST_ROWS * MOST_WIDTH * size_of::<f32>();
/// Memory for the steps: layer 1's bias at each of them, and four times that while they are computed.
const STEPS_BYTES: usize = 5 * MOST_STEP_NUMBERS * size_of::<f32>();
/// Padding of the rows of layer 1 that belong to observation and action, where it is a single number wide, of three networks.
const PADDING_BYTES: usize = 3 * (MOST_OBSERVATION + MOST_ACTION) * padded(1) * size_of::<f32>();
/// Candidates as noise, points, velocities and actions; an observation twice, and what it is normalised with; and what candle's
/// products of matrices pack (a second-level cache).
const CANDIDATES_BYTES: usize =
    4 * (ActionSampler::MOST_CANDIDATES * MOST_ACTION + MOST_OBSERVATION) * size_of::<f32>() + (4 << 20);

/// The most memory that a sampler of an open bundle takes at the same time on a CPU, while it is made and while it samples,
/// bytes, for a file of `size` bytes.
///
/// In packed layers a single column takes the room of 16. A layer that has one and is long comes after one that is wide, with
/// a bias, a scale and a shift for each of its numbers, so that all take at most four times what lies in the file. A fifth
/// time is the largest tensor's while it is packed, or read back. What does not grow with the file is about 50 MiB.
pub const fn most_for_sampler(size: usize) -> usize {
    let padding = smaller(15 * size, PADDING_BYTES);
    5 * size + padding + SCRATCH_BYTES + STEPS_BYTES + CANDIDATES_BYTES
}

const fn smaller(a: usize, b: usize) -> usize {
    if a < b { a } else { b }
}

const fn larger(a: usize, b: usize) -> usize {
    if a < b { b } else { a }
}

/// How many tensors there are.
pub(crate) fn check_count(tensors: usize) -> Result<(), BundleError> {
    within("the number of tensors", (0, MOST_TENSORS), tensors)
}

/// A tensor's name, and what the header says of it: an object, of what length.
pub(crate) fn check_entry(name: &str, json: &str) -> Result<(), BundleError> {
    within(
        "the length of a tensor's name",
        (0, MOST_TENSOR_NAME_BYTES),
        name.len(),
    )?;
    within(
        "the length of what the header says of a tensor",
        (0, MOST_ENTRY_BYTES),
        json.len(),
    )?;
    if !json.starts_with('{') {
        return Err(beyond(
            "what the header says of a tensor",
            "an object",
            &format!("something else ('{name}')"),
        ));
    }
    Ok(())
}

/// The length of each text and number in a manifest's JSON, and how deep its objects and lists lie in each other.
pub(crate) fn check_words(json: &str) -> Result<(), BundleError> {
    let (mut longest, mut length) = (0, 0);
    let (mut deepest, mut depth) = (0_usize, 0_usize);
    let (mut is_text, mut is_escaped) = (false, false);
    for byte in json.bytes() {
        let ends = match byte {
            b'"' => !is_escaped,
            _ => !is_text && (byte.is_ascii_whitespace() || b"{}[]:,".contains(&byte)),
        };
        is_text ^= ends && byte == b'"';
        is_escaped = is_text && byte == b'\\' && !is_escaped;
        length = if ends { 0 } else { length + 1 };
        longest = longest.max(length);
        depth = match byte {
            b'{' | b'[' if !is_text => depth + 1,
            b'}' | b']' if !is_text => depth.saturating_sub(1),
            _ => depth,
        };
        deepest = deepest.max(depth);
    }
    within(
        "the depth of objects and lists in the manifest",
        (0, MOST_DEPTH),
        deepest,
    )?;
    within(
        "the length of a text or number in the manifest",
        (0, MOST_WORD_BYTES),
        longest,
    )
}

/// A tensor without numbers takes no room in the file, whatever sizes it names; and no network has one of more than two sizes.
pub(crate) fn check_shape(name: &str, shape: &[usize]) -> Result<(), BundleError> {
    if shape.contains(&0) || shape.len() > 2 {
        return Err(beyond(
            "the shape of a tensor",
            "one or two sizes of 1 or more",
            &format!("{shape:?} ('{name}')"),
        ));
    }
    Ok(())
}

/// Names, sizes and counts that the manifest states.
pub(crate) fn check_manifest(manifest: &Manifest) -> Result<(), BundleError> {
    let subject = &manifest.subject;
    let bounded = [
        ("the run id's length", 1, MOST_NAME_BYTES, manifest.run.len()),
        (
            "the length of the robot's or the task's name",
            0,
            MOST_NAME_BYTES,
            subject.name().len(),
        ),
        (
            "the number of sampling steps",
            1,
            MOST_STEPS,
            manifest.sampling_steps,
        ),
        (
            "the size of an observation",
            0,
            MOST_OBSERVATION,
            subject.observation_size(),
        ),
        ("the size of an action", 0, MOST_ACTION, subject.action_size()),
        (
            "the number of golden probes",
            0,
            MOST_PROBES,
            manifest.probes.len(),
        ),
    ];
    bounded
        .into_iter()
        .try_for_each(|(what, least, most, got)| within(what, (least, most), got))
}

/// What an action of these networks costs.
pub(crate) fn check_cost(networks: &PolicyNetworks) -> Result<(), BundleError> {
    let (actor, steps) = (&networks.actor, networks.steps);
    let critics = networks.critics.iter().flatten().map(|critic| &critic.trunk);
    for trunk in critics.chain([&actor.trunk]) {
        let mut widths = trunk.mlp.hidden_sizes();
        widths.push(trunk.head.output_size());
        let widest = widths.into_iter().max().unwrap_or(0);
        within("the width of a layer", (0, MOST_WIDTH), widest)?;
    }
    let condition = &actor.condition;
    let widths = [
        actor.trunk.mlp.hidden_sizes().first().copied().unwrap_or(0),
        condition.time.hidden.input_size() + condition.interval.hidden.input_size(),
        condition.time.hidden.output_size() + condition.interval.hidden.output_size(),
        2 * condition.size(),
    ];
    let width = widths.iter().sum::<usize>();
    within(
        "sampling steps times the width of what is computed for each",
        (0, MOST_STEP_NUMBERS),
        steps.saturating_mul(width),
    )?;
    let layers = actor.trunk.mlp.layers.iter().map(|layer| &layer.linear);
    let multiplications = layers
        .chain([&actor.trunk.head])
        .map(|linear| linear.input_size() * linear.output_size());
    within(
        "the number of multiplications for an action",
        (0, MOST_MULTIPLICATIONS),
        steps.saturating_mul(multiplications.sum()),
    )
}

/// A list with an entry for each component of an observation.
pub(crate) fn observation<'de, T, D>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    list(deserializer, MOST_OBSERVATION)
}

/// A list with an entry for each component of an action.
pub(crate) fn action<'de, T, D>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    list(deserializer, MOST_ACTION)
}

/// A list of objects, one for each component of an observation.
pub(crate) fn terms<'de, T, D>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    objects(deserializer, MOST_OBSERVATION)
}

/// A list of objects, one for each component of an action.
pub(crate) fn commanded<'de, T, D>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    objects(deserializer, MOST_ACTION)
}

/// A list of joints, which are objects.
pub(crate) fn joints<'de, T, D>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    objects(deserializer, MOST_JOINTS)
}

/// A list of layers: each has tensors of its own.
pub(crate) fn layers<'de, T, D>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    list(deserializer, MOST_TENSORS)
}

/// A list of golden probes.
pub(crate) fn probes<'de, T, D>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    list(deserializer, MOST_PROBES)
}

/// A task's options, whose length is known before anything is made of them.
pub(crate) fn options<'de, D>(deserializer: D) -> Result<BTreeMap<String, serde_json::Value>, D::Error>
where
    D: Deserializer<'de>,
{
    let json = Box::<RawValue>::deserialize(deserializer)?;
    let length = json.get().len();
    if length > MOST_OPTIONS_BYTES {
        return Err(D::Error::custom(format_args!(
            "the task's options are {length} bytes long; expected at most {MOST_OPTIONS_BYTES}"
        )));
    }
    serde_json::from_str(json.get()).map_err(D::Error::custom)
}

/// A list that ends with an error where it becomes longer than `most`, and keeps no more memory than it needs.
fn list<'de, T, D>(deserializer: D, most: usize) -> Result<Vec<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    deserializer.deserialize_seq(List {
        most,
        items: PhantomData,
    })
}

/// The same of objects alone.
fn objects<'de, T, D>(deserializer: D, most: usize) -> Result<Vec<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    let objects: Vec<Object<T>> = list(deserializer, most)?;
    // In the same memory.
    Ok(objects.into_iter().map(|Object(object)| object).collect())
}

/// What JSON says in an object: serde also reads the fields of a struct from a list, which is shorter by their names.
#[repr(transparent)]
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(AnObject(PhantomData))
    }
}

struct AnObject<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for AnObject<T> {
    type Value = Object<T>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<Object<T>, A::Error> {
        T::deserialize(MapAccessDeserializer::new(fields)).map(Object)
    }
}

/// Entries that a list has room for at first.
const FIRST_ENTRIES: usize = 16;

struct List<T> {
    most: usize,
    items: PhantomData<T>,
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for List<T> {
    type Value = Vec<T>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "a list of at most {} entries", self.most)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<Vec<T>, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = entries.next_element()? {
            let left = self.most - items.len();
            if left == 0 {
                return Err(A::Error::invalid_length(items.len() + 1, &self));
            }
            if items.len() == items.capacity() {
                items.reserve_exact((items.len() / 4).max(FIRST_ENTRIES).min(left));
            }
            items.push(item);
        }
        items.shrink_to_fit();
        Ok(items)
    }
}

fn within(what: &'static str, (least, most): (usize, usize), got: usize) -> Result<(), BundleError> {
    if (least..=most).contains(&got) {
        return Ok(());
    }
    Err(beyond(what, &format!("{least} to {most}"), &got.to_string()))
}

fn beyond(what: &'static str, expected: &str, got: &str) -> BundleError {
    BundleError::Mismatch {
        what,
        expected: expected.to_owned(),
        got: got.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::MOST_BYTES;
    use crate::spec::{ActionJoint, JointSpec, ObservationTerm};

    #[test]
    fn a_word_is_as_long_as_it_is_whatever_is_escaped_in_it() {
        let most = MOST_WORD_BYTES;
        let longest = ["x".repeat(most), "\\\"".repeat(most / 2), "\\\\".repeat(most / 2)];
        for text in &longest {
            let around = format!(r#"{{"a": ["{text}", 1.0, "{text}"], "{text}": 12}}"#);
            assert!(check_words(&around).is_ok());
            assert!(check_words(&format!(r#"{{"a":"{text}y"}}"#)).is_err());
        }
        assert!(check_words(&format!("[{}]", "1".repeat(most))).is_ok());
        assert!(check_words(&format!("[{}]", "1".repeat(most + 1))).is_err());
        assert!(check_words(&" ".repeat(2 * most)).is_ok());
        // Numbers are words each.
        assert!(check_words(&format!("[{}1]", "1,".repeat(most))).is_ok());
    }

    #[test]
    fn a_list_ends_where_its_bound_is() {
        let read = |count: usize| {
            let json = format!("[{}1]", "1,".repeat(count - 1));
            action::<u8, _>(&mut serde_json::Deserializer::from_str(&json))
                .map(|list| (list.len(), list.capacity()))
        };
        assert_eq!(read(MOST_ACTION).unwrap(), (MOST_ACTION, MOST_ACTION));
        assert_eq!(read(700).unwrap(), (700, 700));
        let told = read(MOST_ACTION + 1).unwrap_err().to_string();
        assert!(told.contains("at most 1024 entries"), "{told}");
    }

    #[test]
    fn objects_are_not_read_from_lists() {
        let read = |json: &str| {
            terms::<ObservationTerm, _>(&mut serde_json::Deserializer::from_str(json))
                .map(|list| (list.len(), list.capacity()))
        };
        let term = r#"{"term":"goal","axis":"x","scale":1}"#;
        assert_eq!(read(&format!("[{term},{term}]")).unwrap(), (2, 2));
        let told = read(r#"[["goal",null,1,null,"x"]]"#).unwrap_err().to_string();
        assert!(told.contains("expected an object"), "{told}");
        let told = check_entry("a", r#"["F32",[1],[0,4]]"#).unwrap_err().to_string();
        assert!(told.contains("an object"), "{told}");
        let info = r#"{"dtype":"F32","shape":[],"data_offsets":[0,4]}"#;
        assert!(check_entry("", info).is_ok());
        assert!(format!("\"\":{info},").len() > LEAST_TENSOR_BYTES);
    }

    #[test]
    fn objects_of_a_list_take_no_more_than_twice_their_json_and_little_more_while_it_grows() {
        // As text in a header each quotation mark takes two bytes.
        let length = |json: &str| json.len() + json.matches('"').count();
        let header = MOST_HEADER_BYTES as usize;
        let terms = header / length(r#"{"term":"sin_position","joint":""},"#);
        assert!(size_of::<ObservationTerm>() * terms <= 2 * header);
        assert!(size_of::<ObservationTerm>() * terms * 9 / 4 <= 2 * header + LIST_BYTES);
        let joint = length(r#"{"name":"","velocity_max":1,"effort_max":1},"#);
        assert!(size_of::<JointSpec>() <= 2 * joint);
        const { assert!(size_of::<JointSpec>() * MOST_JOINTS * 9 / 5 <= LIST_BYTES) };
        let commanded = length(r#"{"joint":"","offset":0,"scale":1},"#);
        assert!(size_of::<ActionJoint>() <= 2 * commanded);
        // An object in an object in a task's options: eleven entries, where its node lies, and the text itself.
        let node = 11 * (size_of::<String>() + size_of::<serde_json::Value>()) + 2 * size_of::<usize>();
        assert!(node / r#"{"":}"#.len() + 1 < OPTION_BYTES);
    }

    #[test]
    fn opening_takes_the_files_size_and_little_more() {
        for size in (0..MOST_BYTES).step_by(100_000) {
            let more = most_for_opening(size) - size;
            let most = if size < 9 << 18 { 13 << 18 } else { 8 << 18 };
            assert!(more <= most, "{more} for {size}");
            assert!(most_for_sampler(size) <= 5 * size + (51 << 20));
        }
    }

    #[test]
    fn a_manifest_is_as_deep_as_it_is_whatever_its_texts_hold() {
        let deep = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
        assert!(check_words(&deep(MOST_DEPTH)).is_ok());
        assert!(check_words(&deep(MOST_DEPTH + 1)).is_err());
        assert!(check_words(&format!("[{0},{0}]", deep(MOST_DEPTH - 1))).is_ok());
        assert!(check_words(&format!(r#"["{}\"{}"]"#, "[".repeat(200), "{".repeat(200))).is_ok());
    }
}
