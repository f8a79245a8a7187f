//! The policy that acts, and the one before it. A swap happens between two ticks and only moves pointers: the
//! policy that is no longer kept is handed back, to be freed on a thread that has time.

use super::validate::Policy;

/// The live policy and the one before.
pub struct Slot {
    current: Box<Policy>,
    previous: Option<Box<Policy>>,
}

impl Slot {
    /// The first policy goes live.
    pub fn new(policy: Box<Policy>) -> Self {
        Self {
            current: policy,
            previous: None,
        }
    }

    /// `next` goes live, the live one is kept, and the one that was kept so far is returned.
    #[must_use = "free the policy on another thread than the control loop"]
    pub fn swap(&mut self, next: Box<Policy>) -> Option<Box<Policy>> {
        let old = std::mem::replace(&mut self.current, next);
        self.previous.replace(old)
    }

    /// The policy before goes live again, and the live one is kept in its place; `false` when there is none.
    pub fn rollback(&mut self) -> bool {
        let Some(previous) = self.previous.as_mut() else {
            return false;
        };
        std::mem::swap(&mut self.current, previous);
        true
    }

    /// The live policy.
    pub fn current(&self) -> &Policy {
        &self.current
    }

    /// The live policy, to act with.
    pub fn current_mut(&mut self) -> &mut Policy {
        &mut self.current
    }

    /// The policy before.
    pub fn previous(&self) -> Option<&Policy> {
        self.previous.as_deref()
    }
}
