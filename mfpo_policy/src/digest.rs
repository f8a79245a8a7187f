//! What is hashed as JSON goes into the hash as it is written: the text is never there as a whole.

use std::io::{self, BufWriter, Write};

use serde::Serialize;
use sha2::{Digest, Sha256};

struct Feed<'a>(&'a mut Sha256);

impl Write for Feed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Feeds `hash` the JSON of `value`.
pub(crate) fn feed_json(hash: &mut Sha256, value: &impl Serialize) {
    let mut out = BufWriter::new(Feed(hash));
    // A hash takes whatever comes, and no map of what is hashed has keys other than text: neither can fail.
    let _ = serde_json::to_writer(&mut out, value);
    let _ = out.flush();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::one_joint_robot;

    #[test]
    fn what_is_fed_is_the_text() {
        let robot = one_joint_robot();
        let mut hash = Sha256::new();
        feed_json(&mut hash, &robot);
        assert_eq!(
            hash.finalize(),
            Sha256::digest(serde_json::to_vec(&robot).unwrap())
        );
    }
}
