//! Bundles that were offered and not looked at yet. Only the newest counts: checking takes longer than a trainer
//! may take to publish the next. While swaps are frozen (`accept_bundles` is false) the newest is kept, and looked
//! at once they are allowed again. One that was refused for a parameter is kept, too, and looked at once more when that
//! has changed, unless another has come or gone live since.

use std::path::PathBuf;

/// A bundle, or where it lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Offer {
    /// The file itself.
    Bytes(Vec<u8>),
    /// A file that was announced.
    Announced {
        /// Where it lies.
        path: PathBuf,
        /// The digest of the bundle in it.
        digest: String,
    },
}

impl Offer {
    /// What a message offers: the bytes, or where there are none the file that it names.
    ///
    /// # Errors
    /// Why nothing can be made of it.
    pub fn of(data: Vec<u8>, path: String, digest: String) -> Result<Self, String> {
        if path.is_empty() || !data.is_empty() {
            return Ok(Self::Bytes(data));
        }
        let shown = format!("a bundle is announced as the file '{path}'");
        let path = PathBuf::from(path);
        if !path.is_absolute() {
            return Err(format!(
                "{shown}; expected an absolute path on the node's machine"
            ));
        }
        if digest.is_empty() {
            return Err(format!(
                "{shown} without a digest; expected its 64 hexadecimal digits"
            ));
        }
        Ok(Self::Announced { path, digest })
    }
}

/// The newest bundle on offer.
#[derive(Debug)]
pub struct Offers {
    accepting: bool,
    newest: Option<Offer>,
    /// The last one, where it was refused for a parameter.
    refused: Option<Offer>,
    superseded: u64,
}

impl Offers {
    /// Nothing offered yet.
    pub fn new(accepting: bool) -> Self {
        Self {
            accepting,
            newest: None,
            refused: None,
            superseded: 0,
        }
    }

    /// A bundle has arrived; it takes the place of one that was not looked at.
    pub fn offer(&mut self, offer: Offer) {
        self.refused = None;
        self.superseded += u64::from(self.newest.replace(offer).is_some());
    }

    /// This one was refused for a parameter; it is of interest only while nothing newer waits.
    pub fn keep_refused(&mut self, offer: Offer) {
        self.refused = Some(offer).filter(|_| self.newest.is_none());
    }

    /// What was refused is of no interest any more.
    pub fn forget_refused(&mut self) {
        self.refused = None;
    }

    /// The parameters that decide about bundles have changed: what they refused waits to be looked at again.
    pub fn look_again(&mut self) {
        if self.newest.is_none() {
            self.newest = self.refused.take();
        }
    }

    /// Freezes or allows swaps.
    pub fn set_accepting(&mut self, accepting: bool) {
        self.accepting = accepting;
    }

    /// Are swaps allowed?
    pub fn accepting(&self) -> bool {
        self.accepting
    }

    /// Is a bundle waiting, whether it may be taken or not?
    pub fn is_pending(&self) -> bool {
        self.newest.is_some()
    }

    /// The newest bundle, to be looked at; nothing while swaps are frozen.
    pub fn take(&mut self) -> Option<Offer> {
        if self.accepting { self.newest.take() } else { None }
    }

    /// Bundles that a newer one replaced before they were looked at.
    pub fn superseded(&self) -> u64 {
        self.superseded
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(byte: u8) -> Offer {
        Offer::Bytes(vec![byte])
    }

    #[test]
    fn a_message_offers_its_bytes_or_the_file_that_it_names() {
        let of = |data: &[u8], path: &str, digest: &str| Offer::of(data.to_vec(), path.into(), digest.into());
        assert_eq!(of(&[1], "", "ab"), Ok(bytes(1)));
        assert_eq!(
            of(&[1], "/runs/1", "ab"),
            Ok(bytes(1)),
            "what came goes before what is elsewhere"
        );
        let announced = Offer::Announced {
            path: "/runs/1".into(),
            digest: "ab".into(),
        };
        assert_eq!(of(&[], "/runs/1", "ab"), Ok(announced));
        assert_eq!(of(&[], "", "ab"), Ok(Offer::Bytes(Vec::new())));
        let error = of(&[], "runs/1", "ab").unwrap_err();
        assert!(
            error.contains("'runs/1'") && error.contains("absolute"),
            "{error}"
        );
        assert!(of(&[], "/runs/1", "").unwrap_err().contains("without a digest"));
    }

    #[test]
    fn only_the_newest_bundle_is_looked_at() {
        let mut offers = Offers::new(true);
        offers.offer(bytes(1));
        offers.offer(bytes(2));
        assert_eq!((offers.take(), offers.take()), (Some(bytes(2)), None));
        assert_eq!(offers.superseded(), 1);
    }

    #[test]
    fn what_was_refused_for_a_parameter_is_looked_at_again_unless_another_came_or_went_live() {
        let mut offers = Offers::new(true);
        offers.keep_refused(bytes(1));
        assert_eq!(offers.take(), None, "not before the parameter has changed");
        offers.look_again();
        assert_eq!((offers.take(), offers.take()), (Some(bytes(1)), None));
        offers.look_again();
        assert_eq!(offers.take(), None, "once");

        offers.keep_refused(bytes(1));
        offers.offer(bytes(2));
        assert_eq!(offers.take(), Some(bytes(2)));
        offers.look_again();
        assert_eq!(offers.take(), None, "another came");

        offers.offer(bytes(4));
        offers.keep_refused(bytes(3));
        offers.look_again();
        assert_eq!((offers.take(), offers.take()), (Some(bytes(4)), None));

        offers.keep_refused(bytes(5));
        offers.forget_refused();
        offers.look_again();
        assert_eq!(offers.take(), None, "another went live");
    }

    #[test]
    fn a_bundle_that_arrives_while_swaps_are_frozen_is_kept_until_they_are_allowed() {
        let mut offers = Offers::new(false);
        offers.offer(bytes(1));
        offers.offer(bytes(2));
        assert_eq!(offers.take(), None);
        assert!(offers.is_pending());
        offers.set_accepting(true);
        assert_eq!(offers.take(), Some(bytes(2)));
    }
}
