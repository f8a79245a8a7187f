//! Bundles in parts, whatever comes: parts that are lost, repeated, out of order, too long, that contradict themselves or are of
//! other bundles.

use mfpo_node::weights::parts::{MOST_PARTS, Name, Part, Parts};
use mfpo_policy::bundle::MOST_BYTES;
use proptest::prelude::*;
use proptest::sample::Index;

use super::support::{at, peak_of};

/// Bytes of a part.
const PIECE: usize = 5;
/// Bytes of each file: one more than may be on their way at the same time.
const SIZES: [usize; 3] = [3, 97, 150];
/// Where the parts of one bundle are kept, a place for each, at most; and names and words of errors.
const PLACES: usize = MOST_PARTS as usize * size_of::<Option<Vec<u8>>>() + 4096;

fn file(number: usize, size: usize) -> Vec<u8> {
    (0..size).map(|i| (31 * number + 7 * i) as u8).collect()
}

/// The parts of a file of its own run.
fn parts_of(number: usize, size: usize) -> Vec<Part> {
    let bytes = file(number, size);
    let count = bytes.len().div_ceil(PIECE);
    let part = |(index, data): (usize, &[u8])| Part {
        name: Name {
            run: format!("run-{number}"),
            version: 5,
            digest: format!("digest-{number}"),
        },
        size: size as u64,
        index: index as u32,
        count: count as u32,
        data: data.to_vec(),
    };
    bytes.chunks(PIECE).enumerate().map(part).collect()
}

/// What is wrong with a part.
#[derive(Debug, Clone)]
enum Wrong {
    Nothing,
    Index(u32),
    Count(u32),
    Size(u64),
    /// It holds so many bytes.
    Length(usize),
    /// It is of another version, which nobody sends the rest of.
    Foreign(u64),
}

impl Wrong {
    /// Has the part the name of a bundle without being a part of it?
    fn is_lie(&self) -> bool {
        !matches!(self, Self::Nothing | Self::Foreign(_))
    }

    fn put_into(&self, part: &mut Part) {
        match *self {
            Self::Nothing => {}
            Self::Index(index) => part.index = index,
            Self::Count(count) => part.count = count,
            Self::Size(size) => part.size = size,
            Self::Length(length) => part.data = vec![0xff; length],
            Self::Foreign(version) => {
                part.name.version = version;
                part.name.digest = format!("digest-{version}");
            }
        }
    }
}

fn wrong() -> impl Strategy<Value = Wrong> {
    let most = MOST_BYTES as u64;
    prop_oneof![
        24 => Just(Wrong::Nothing),
        1 => prop_oneof![0..40_u32, any::<u32>()].prop_map(Wrong::Index),
        1 => prop_oneof![0..40_u32, MOST_PARTS - 1..=MOST_PARTS + 1, any::<u32>()].prop_map(Wrong::Count),
        1 => prop_oneof![0..200_u64, most - 1..=most + 1, any::<u64>()].prop_map(Wrong::Size),
        1 => (0..2_000_usize).prop_map(Wrong::Length),
        2 => (4..7_u64).prop_map(Wrong::Foreign),
    ]
}

proptest! {
    /// A file comes out only whole, what is kept is what came of two bundles at most, and nothing is allocated for what is
    /// only announced.
    #[test]
    fn whatever_parts_come_a_file_is_whole_and_no_more_is_kept_than_was_announced_and_came(
        sent in proptest::collection::vec((0..SIZES.len(), any::<Index>(), wrong()), 0..200),
    ) {
        let honest: Vec<Vec<Part>> = (0..).zip(SIZES).map(|(number, size)| parts_of(number, size)).collect();
        let mut is_lied_of = [false; SIZES.len()];
        let (mut came, mut largest) = (0, 0);
        let mut parts = Parts::default();
        for (step, (number, index, wrong)) in sent.iter().enumerate() {
            let mut part = honest[*number][index.index(honest[*number].len())].clone();
            wrong.put_into(&mut part);
            is_lied_of[*number] |= wrong.is_lie();
            came += part.data.len() as u64;
            let size = part.size;
            if size <= MOST_BYTES as u64 {
                largest = size.max(largest);
            }
            let now = at(step as f64);
            let (taken, peak) = peak_of(|| {
                let _ = parts.make_room(&part.name, now);
                parts.take(part, now)
            });
            let made = match &taken {
                Ok(Some(bytes)) => bytes.len(),
                _ => 0,
            };
            prop_assert!(peak <= made + PLACES, "{peak} bytes were allocated to make {made}");
            prop_assert!(parts.bytes() <= came.min(2 * largest), "{} bytes are kept", parts.bytes());
            if let Ok(Some(bytes)) = taken {
                prop_assert_eq!(bytes.len() as u64, size);
                let is_whole = bytes == file(*number, SIZES[*number]);
                prop_assert!(is_whole || is_lied_of[*number], "file {number} is another one");
            }
        }
        let much_later = at(1e6);
        while parts.give_up(much_later).is_some() {}
        prop_assert_eq!(parts.bytes(), 0);
    }

    /// In any order, some of them twice: every file of which no part is lost comes out, and no other.
    #[test]
    fn two_bundles_of_which_every_part_comes_are_put_together_and_one_that_lacks_a_part_is_not(
        sizes in [1..160_usize, 1..160_usize],
        order in proptest::collection::vec(any::<(u32, u32)>(), 64),
        lost in proptest::option::of(any::<Index>()),
    ) {
        let mut all: Vec<(usize, Part)> = Vec::new();
        for (number, size) in sizes.into_iter().enumerate() {
            all.extend(parts_of(number, size).into_iter().map(|part| (number, part)));
        }
        let lost = lost.map(|lost| all.remove(lost.index(all.len())).0);
        let mut sent = Vec::new();
        for ((number, part), (once, again)) in all.iter().zip(order) {
            sent.push((once, *number, part));
            if again % 3 == 0 {
                sent.push((again, *number, part));
            }
        }
        sent.sort_by_key(|(when, ..)| *when);

        let (mut parts, mut came) = (Parts::default(), [false; 2]);
        for (step, (_, number, part)) in sent.into_iter().enumerate() {
            let now = at(step as f64);
            prop_assert!(parts.make_room(&part.name, now).is_none(), "there is room for two");
            let taken = parts.take(part.clone(), now);
            prop_assert!(taken.is_ok(), "{taken:?}");
            if let Ok(Some(bytes)) = taken {
                prop_assert_eq!(bytes, file(number, sizes[number]));
                came[number] = true;
            }
        }
        prop_assert_eq!(came, [0, 1].map(|number| lost != Some(number)));
    }
}
