//! Bundles that were offered and not looked at yet. Only the newest counts: checking takes longer than a trainer
//! may take to publish the next. While swaps are frozen (`accept_bundles` is false) the newest is kept, and looked
//! at once they are allowed again.

/// The newest bundle on offer.
#[derive(Debug)]
pub struct Offers {
    accepting: bool,
    newest: Option<Vec<u8>>,
    superseded: u64,
}

impl Offers {
    /// Nothing offered yet.
    pub fn new(accepting: bool) -> Self {
        Self {
            accepting,
            newest: None,
            superseded: 0,
        }
    }

    /// A bundle has arrived; it takes the place of one that was not looked at.
    pub fn offer(&mut self, bytes: Vec<u8>) {
        self.superseded += u64::from(self.newest.replace(bytes).is_some());
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
    pub fn take(&mut self) -> Option<Vec<u8>> {
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

    #[test]
    fn only_the_newest_bundle_is_looked_at() {
        let mut offers = Offers::new(true);
        offers.offer(vec![1]);
        offers.offer(vec![2]);
        assert_eq!((offers.take(), offers.take()), (Some(vec![2]), None));
        assert_eq!(offers.superseded(), 1);
    }

    #[test]
    fn a_bundle_that_arrives_while_swaps_are_frozen_is_kept_until_they_are_allowed() {
        let mut offers = Offers::new(false);
        offers.offer(vec![1]);
        offers.offer(vec![2]);
        assert_eq!(offers.take(), None);
        assert!(offers.is_pending());
        offers.set_accepting(true);
        assert_eq!(offers.take(), Some(vec![2]));
    }
}
