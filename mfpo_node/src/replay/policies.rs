//! The policies of a recording: where each is attached, and the few that ticks have asked last. Another one is read from
//! the file when a tick names it, through the checks of any bundle, so that a recording of many takes no more memory.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use candle_core::Device;
use mcap::records::{Record, op};
use mfpo_policy::bundle;
use mfpo_policy::sampler::ActionSampler;

use super::ReplayError;

/// Policies in memory: the one that acts, and the one that it takes over from in a blend.
const KEPT: usize = 2;
/// An MCAP file begins with so many bytes before its first record.
const MAGIC: u64 = 8;
/// A record begins with its kind and its length, bytes.
const HEAD: usize = 1 + 8;

/// Where an attachment lies in the file, behind its head.
#[derive(Debug, Clone, Copy)]
struct Place {
    begin: u64,
    length: usize,
}

/// The attached policies by digest.
pub struct Policies {
    path: PathBuf,
    file: File,
    /// Where the record after the last attachment begins.
    position: u64,
    places: HashMap<String, Place>,
    /// The one that was asked last comes last.
    kept: Vec<(String, ActionSampler)>,
    most_kept: usize,
}

impl Policies {
    /// Of a file that has not been read yet.
    pub fn new(path: PathBuf, file: File) -> Self {
        Self {
            path,
            file,
            position: MAGIC,
            places: HashMap::new(),
            kept: Vec::with_capacity(KEPT),
            most_kept: 0,
        }
    }

    /// The most that were in memory at once.
    pub fn most_kept(&self) -> usize {
        self.most_kept
    }

    /// The reader has come to the next attachment: a policy under this name, or something else.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn passed(&mut self, policy: Option<String>) -> Result<(), ReplayError> {
        let place = self.next_attachment().map_err(|source| self.io(source))?;
        self.places.extend(policy.map(|digest| (digest, place)));
        Ok(())
    }

    /// The policy of a digest; `None` where it has not been attached.
    ///
    /// # Errors
    /// When what is attached is refused.
    pub fn get(&mut self, digest: &str) -> Result<Option<&mut ActionSampler>, ReplayError> {
        let kept = match self.kept.iter().position(|(name, _)| name == digest) {
            Some(index) => self.kept.remove(index),
            None => {
                let Some(place) = self.places.get(digest).copied() else {
                    return Ok(None);
                };
                if self.kept.len() == KEPT {
                    self.kept.remove(0);
                }
                (digest.to_owned(), self.load(digest, place)?)
            }
        };
        self.kept.push(kept);
        self.most_kept = self.most_kept.max(self.kept.len());
        Ok(self.kept.last_mut().map(|(_, sampler)| sampler))
    }

    /// The same checks as before the policy acted, but for those of the node that it acted in.
    fn load(&self, digest: &str, place: Place) -> Result<ActionSampler, ReplayError> {
        let mut record = vec![0; place.length];
        self.file
            .read_exact_at(&mut record, place.begin)
            .map_err(|source| self.io(source))?;
        let Ok(Record::Attachment { data, .. }) = mcap::parse_record(op::ATTACHMENT, &record) else {
            // It was one when the reader passed it.
            return Err(self.io(io::ErrorKind::InvalidData.into()));
        };
        let refused = |source| ReplayError::Policy {
            digest: digest.to_owned(),
            source: Box::new(source),
        };
        let bundle = bundle::open(&data).map_err(refused)?;
        if bundle.digest() != digest {
            return Err(ReplayError::Digest {
                got: bundle.digest().to_owned(),
                expected: digest.to_owned(),
            });
        }
        let mut sampler = bundle.sampler(&Device::Cpu).map_err(refused)?;
        bundle.check_probes(&mut sampler).map_err(refused)?;
        Ok(sampler)
    }

    fn next_attachment(&mut self) -> io::Result<Place> {
        loop {
            let mut head = [0; HEAD];
            self.file.read_exact_at(&mut head, self.position)?;
            let [kind, length @ ..] = head;
            let (begin, length) = (self.position + HEAD as u64, u64::from_le_bytes(length));
            self.position = begin.saturating_add(length);
            if kind == op::ATTACHMENT {
                // The reader, which has limited what a record may be, has passed it.
                let length = usize::try_from(length).map_err(|_| io::ErrorKind::InvalidData)?;
                return Ok(Place { begin, length });
            }
        }
    }

    fn io(&self, source: io::Error) -> ReplayError {
        ReplayError::Io {
            path: self.path.clone(),
            source,
        }
    }
}
