//! The policy that acts, the one before it, and the one that is in the shadow. A swap happens between two ticks and only
//! moves pointers: the policy that is no longer kept is handed back, to be freed on a thread that has time.

use super::validate::Policy;

/// The live policy and the one before.
pub struct Slot {
    current: Box<Policy>,
    previous: Option<Box<Policy>>,
    shadow: Option<Box<Policy>>,
}

impl Slot {
    /// The first policy goes live.
    pub fn new(policy: Box<Policy>) -> Self {
        Self {
            current: policy,
            previous: None,
            shadow: None,
        }
    }

    /// `policy` is computed beside the live one from now on; the one in its place so far is returned.
    #[must_use = "free the policy on another thread than the control loop"]
    pub fn set_shadow(&mut self, policy: Option<Box<Policy>>) -> Option<Box<Policy>> {
        std::mem::replace(&mut self.shadow, policy)
    }

    /// The policy in the shadow.
    pub fn shadow(&self) -> Option<&Policy> {
        self.shadow.as_deref()
    }

    /// The policy in the shadow, to be computed.
    pub fn shadow_mut(&mut self) -> Option<&mut Policy> {
        self.shadow.as_deref_mut()
    }

    /// The live policy and the one before, to be computed both.
    pub fn both_mut(&mut self) -> (&mut Policy, Option<&mut Policy>) {
        (&mut self.current, self.previous.as_deref_mut())
    }

    /// The policy before goes live again, and the live one is given up: it is returned. `None` when there is none before.
    #[must_use = "free the policy on another thread than the control loop"]
    pub fn give_up(&mut self) -> Option<Box<Policy>> {
        let previous = self.previous.take()?;
        Some(std::mem::replace(&mut self.current, previous))
    }

    /// `next` goes live, the live one is kept, and the one that was kept so far is returned.
    #[must_use = "free the policy on another thread than the control loop"]
    pub fn swap(&mut self, next: Box<Policy>) -> Option<Box<Policy>> {
        let old = std::mem::replace(&mut self.current, next);
        self.previous.replace(old)
    }

    /// `next` goes live in the place of the live one, which is returned; the one before is kept.
    #[must_use = "free the policy on another thread than the control loop"]
    pub fn replace(&mut self, next: Box<Policy>) -> Box<Policy> {
        std::mem::replace(&mut self.current, next)
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
