//! FNV-1a, 64 bits: tells contents apart in stamps and folder names; no protection against malice.

/// Offset basis and prime of the 64-bit FNV-1a hash.
const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0000_0100_0000_01b3;

/// A running FNV-1a hash.
pub struct Hash(u64);

impl Hash {
    /// The hash of nothing.
    pub fn new() -> Self {
        Self(OFFSET)
    }

    /// The hash of what came before, followed by `bytes`.
    pub fn feed(mut self, bytes: impl AsRef<[u8]>) -> Self {
        for byte in bytes.as_ref() {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(PRIME);
        }
        self
    }

    /// Sixteen hexadecimal digits.
    pub fn hex(&self) -> String {
        format!("{:016x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::Hash;

    // From the reference vectors of the hash's authors.
    #[test]
    fn hash_gives_the_published_vectors() {
        assert_eq!(Hash::new().hex(), "cbf29ce484222325");
        assert_eq!(Hash::new().feed("a").hex(), "af63dc4c8601ec8c");
        assert_eq!(Hash::new().feed("foo").feed("bar").hex(), "85944171f73967e8");
    }
}
