//! Bundles that arrive in parts, so that none of the messages is large. Whatever comes, in whatever order: what is kept is
//! bounded, a bundle that stays incomplete is given up, and each refusal says why.

use mfpo_policy::bundle::MOST_BYTES;
use thiserror::Error;

use crate::time::MonoTime;

/// A bundle is given up when no part of it has come for so long, ns; one that was complete is taken again when it is sent
/// after so long without any: whoever sends it again means it, be it that it was refused.
const PATIENCE: u64 = 10_000_000_000;
/// So many bundles may be on their way at the same time; the one that waits longest makes room for another.
const MOST_BUNDLES: usize = 2;
/// A bundle may have so many parts.
pub const MOST_PARTS: u32 = 4096;

/// What names a bundle that comes in parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    /// Training run.
    pub run: String,
    /// Version within the run.
    pub version: u64,
    /// Digest that the manifest states.
    pub digest: String,
}

/// One part.
#[derive(Debug, Clone)]
pub struct Part {
    /// Of which bundle.
    pub name: Name,
    /// Size of the whole file, bytes.
    pub size: u64,
    /// Place of this part.
    pub index: u32,
    /// Parts of the file.
    pub count: u32,
    /// The bytes.
    pub data: Vec<u8>,
}

/// Why a bundle that came in parts is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("version {} of run '{}', sent in parts: {what}", name.version, name.run)]
pub struct PartsError {
    name: Name,
    what: String,
}

/// A bundle of which some parts have come.
#[derive(Debug)]
struct Pile {
    name: Name,
    size: u64,
    parts: Vec<Option<Vec<u8>>>,
    came: usize,
    bytes: u64,
    last: MonoTime,
}

/// The bundles that are on their way.
#[derive(Debug, Default)]
pub struct Parts {
    piles: Vec<Pile>,
    /// The bundle that was complete last, and when a part of it has come: a latched topic may send its parts again.
    complete: Option<(Name, MonoTime)>,
}

impl Parts {
    /// A part has come; the whole file when it was the last one that was missing.
    ///
    /// # Errors
    /// When the part contradicts itself or those that came before; its bundle is then given up.
    pub fn take(&mut self, part: Part, now: MonoTime) -> Result<Option<Vec<u8>>, PartsError> {
        if self.was_complete(&part.name, now) {
            self.complete = Some((part.name, now));
            return Ok(None);
        }
        let name = part.name.clone();
        let taken = self.put(part, now);
        let index = self.piles.iter().position(|pile| pile.name == name);
        match (taken, index) {
            (Err(what), index) => {
                index.map(|index| self.piles.remove(index));
                Err(PartsError { name, what })
            }
            (Ok(()), Some(index)) if self.piles[index].is_complete() => {
                let pile = self.piles.remove(index);
                self.complete = Some((name, now));
                Ok(Some(pile.put_together()))
            }
            (Ok(()), _) => Ok(None),
        }
    }

    /// Gives up what does not go on; why.
    pub fn give_up(&mut self, now: MonoTime) -> Option<PartsError> {
        let index = self
            .piles
            .iter()
            .position(|pile| now.since(pile.last) > PATIENCE)?;
        Some(self.piles.remove(index).incomplete("no other came for 10 s"))
    }

    /// Makes room for one more bundle, where there are too many; why one was given up.
    pub fn make_room(&mut self, newcomer: &Name, now: MonoTime) -> Option<PartsError> {
        if self.was_complete(newcomer, now) || self.piles.iter().any(|pile| pile.name == *newcomer) {
            return None;
        }
        // A newer version of the same run is what is wanted; its run sends the parts one bundle after the other.
        let older = self
            .piles
            .iter()
            .position(|pile| pile.name.run == newcomer.run && pile.name.version < newcomer.version);
        let oldest = || {
            let by_age = self.piles.iter().enumerate().min_by_key(|(_, pile)| pile.last);
            by_age
                .filter(|_| self.piles.len() >= MOST_BUNDLES)
                .map(|(index, _)| index)
        };
        let index = older.or_else(oldest)?;
        Some(
            self.piles
                .remove(index)
                .incomplete("another bundle took its place"),
        )
    }

    /// Bytes that are kept.
    pub fn bytes(&self) -> u64 {
        self.piles.iter().map(|pile| pile.bytes).sum()
    }

    /// Was this the last bundle that was complete, a moment ago?
    fn was_complete(&self, name: &Name, now: MonoTime) -> bool {
        let complete = self.complete.as_ref();
        complete.is_some_and(|(complete, last)| complete == name && now.since(*last) <= PATIENCE)
    }

    fn put(&mut self, part: Part, now: MonoTime) -> Result<(), String> {
        part.check()?;
        let index = match self.piles.iter().position(|pile| pile.name == part.name) {
            Some(index) => index,
            None => {
                self.piles.push(Pile::of(&part, now));
                self.piles.len() - 1
            }
        };
        self.piles[index].put(part, now)
    }
}

impl Part {
    fn check(&self) -> Result<(), String> {
        let &Self {
            size, index, count, ..
        } = self;
        if size > MOST_BYTES as u64 {
            return Err(format!("it is {size} bytes large; expected at most {MOST_BYTES}"));
        }
        if count == 0 || count > MOST_PARTS {
            return Err(format!("it has {count} parts; expected 1 to {MOST_PARTS}"));
        }
        if index >= count {
            return Err(format!(
                "part {index} came; expected one of 0 to {}, for there are {count}",
                count - 1
            ));
        }
        if self.data.is_empty() {
            return Err(format!(
                "part {index} is empty; expected some of the {size} bytes"
            ));
        }
        Ok(())
    }
}

impl Pile {
    fn of(part: &Part, now: MonoTime) -> Self {
        Self {
            name: part.name.clone(),
            size: part.size,
            parts: vec![None; part.count as usize],
            came: 0,
            bytes: 0,
            last: now,
        }
    }

    fn put(&mut self, part: Part, now: MonoTime) -> Result<(), String> {
        let (count, size) = (self.parts.len(), self.size);
        if (part.count as usize, part.size) != (count, size) {
            return Err(format!(
                "a part says {} bytes in {} parts; expected {size} in {count}, as the first one said",
                part.size, part.count
            ));
        }
        self.last = now;
        let place = &mut self.parts[part.index as usize];
        if place.is_none() {
            self.came += 1;
            self.bytes += part.data.len() as u64;
            *place = Some(part.data);
        }
        let is_complete = self.came == count;
        if self.bytes > size || (is_complete && self.bytes < size) {
            let (came, bytes) = (self.came, self.bytes);
            return Err(format!(
                "{came} of {count} parts hold {bytes} bytes; expected {size} in all"
            ));
        }
        Ok(())
    }

    fn is_complete(&self) -> bool {
        self.came == self.parts.len()
    }

    /// The file; each part is freed once it is in its place.
    fn put_together(self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.bytes as usize);
        for part in self.parts.into_iter().flatten() {
            bytes.extend_from_slice(&part);
        }
        bytes
    }

    fn incomplete(self, why: &str) -> PartsError {
        let what = format!(
            "{} of {} parts came and {why}; publish it again",
            self.came,
            self.parts.len()
        );
        PartsError {
            name: self.name,
            what,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: [u8; 10] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10];

    fn at(seconds: u64) -> MonoTime {
        MonoTime::from_nanos(seconds * 1_000_000_000)
    }

    fn name(run: &str, version: u64) -> Name {
        Name {
            run: run.into(),
            version,
            digest: format!("{run}{version}"),
        }
    }

    /// Part `index` of [`FILE`] in three: 4, 4 and 2 bytes.
    fn part(run: &str, version: u64, index: u32) -> Part {
        Part {
            name: name(run, version),
            size: 10,
            index,
            count: 3,
            data: FILE.chunks(4).nth(index as usize).unwrap().to_vec(),
        }
    }

    #[test]
    fn parts_in_any_order_and_of_two_runs_at_once_make_the_files() {
        let mut parts = Parts::default();
        for (run, index) in [("a", 2), ("b", 0), ("a", 0), ("b", 2), ("a", 0)] {
            assert_eq!(parts.take(part(run, 1, index), at(1)), Ok(None), "{run} {index}");
        }
        assert_eq!(parts.take(part("a", 1, 1), at(2)), Ok(Some(FILE.to_vec())));
        assert_eq!(parts.take(part("b", 1, 1), at(2)), Ok(Some(FILE.to_vec())));
        assert_eq!(parts.bytes(), 0, "nothing is kept");
        assert_eq!(parts.take(part("b", 1, 0), at(3)), Ok(None), "sent again");
        assert_eq!(parts.bytes(), 0);
    }

    #[test]
    fn a_bundle_that_is_sent_again_after_a_while_is_put_together_again() {
        let mut parts = Parts::default();
        for index in 0..3 {
            let _ = parts.take(part("a", 1, index), at(1));
        }
        // An echo of the first time may take long.
        for second in [5, 12, 20] {
            assert_eq!(parts.make_room(&name("a", 1), at(second)), None);
            assert_eq!(parts.take(part("a", 1, 0), at(second)), Ok(None));
            assert_eq!(parts.bytes(), 0, "{second} s");
        }
        for index in 0..2 {
            assert_eq!(parts.take(part("a", 1, index), at(31)), Ok(None));
        }
        assert_eq!(parts.take(part("a", 1, 2), at(31)), Ok(Some(FILE.to_vec())));
    }

    #[test]
    fn parts_that_contradict_themselves_or_each_other_are_refused_with_the_reason() {
        let refused = |change: &dyn Fn(&mut Part), words: &str| {
            let mut parts = Parts::default();
            parts.take(part("a", 1, 0), at(1)).unwrap();
            let mut wrong = part("a", 1, 1);
            change(&mut wrong);
            let text = parts.take(wrong, at(1)).unwrap_err().to_string();
            assert!(
                text.contains("version 1 of run 'a'") && text.contains(words),
                "{text}"
            );
            assert_eq!(parts.bytes(), 0, "its bundle is given up");
        };
        refused(&|p| p.index = 3, "part 3 came; expected one of 0 to 2");
        refused(&|p| p.count = 0, "0 parts; expected 1 to 4096");
        refused(&|p| p.count = 5_000, "5000 parts");
        refused(
            &|p| p.data = vec![0; 7],
            "2 of 3 parts hold 11 bytes; expected 10 in all",
        );
        refused(&|p| p.data.clear(), "part 1 is empty");
        refused(&|p| p.size = u64::MAX, "bytes large; expected at most");
        refused(
            &|p| {
                p.size = 12;
            },
            "12 bytes in 3 parts; expected 10 in 3",
        );
        let mut parts = Parts::default();
        parts.take(part("a", 1, 0), at(1)).unwrap();
        parts.take(part("a", 1, 1), at(1)).unwrap();
        let mut short = part("a", 1, 2);
        short.data.pop();
        let text = parts.take(short, at(1)).unwrap_err().to_string();
        assert!(text.contains("3 of 3 parts hold 9 bytes; expected 10"), "{text}");
    }

    #[test]
    fn a_bundle_that_stays_incomplete_is_given_up_and_named() {
        let mut parts = Parts::default();
        parts.take(part("a", 1, 0), at(1)).unwrap();
        parts.take(part("a", 1, 1), at(5)).unwrap();
        assert_eq!(parts.give_up(at(14)), None);
        let text = parts.give_up(at(16)).unwrap().to_string();
        assert!(
            text.contains("2 of 3 parts came and no other came for 10 s"),
            "{text}"
        );
        assert_eq!((parts.bytes(), parts.give_up(at(100))), (0, None));
    }

    #[test]
    fn what_is_kept_is_bounded_and_a_newer_version_takes_the_place_of_its_runs_older_one() {
        let mut parts = Parts::default();
        let mut put = |run: &str, version: u64, second: u64| {
            let gone = parts.make_room(&name(run, version), at(second));
            parts.take(part(run, version, 0), at(second)).unwrap();
            assert!(parts.bytes() <= 8, "{} bytes are kept", parts.bytes());
            gone.map(|error| error.to_string())
        };
        assert_eq!(put("a", 1, 1), None);
        assert_eq!(put("b", 1, 2), None);
        assert_eq!(put("a", 1, 3), None, "the same bundle");
        let gone = put("b", 2, 4).unwrap();
        assert!(
            gone.contains("version 1 of run 'b'") && gone.contains("took its place"),
            "{gone}"
        );
        let gone = put("c", 1, 5).unwrap();
        assert!(
            gone.contains("version 1 of run 'a'"),
            "the one that waits longest: {gone}"
        );
    }
}
