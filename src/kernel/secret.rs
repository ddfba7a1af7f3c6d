//! Secret bytes: moved, never copied; wiped on drop; exposed by name only.
//!
//! A [`Secret`] has no `Clone`, `Debug`, `Display` or `Serialize`, so that a log line, an error or a careless
//! derive cannot carry one. The zeroing allocator (see `cli`) wipes what other crates copy on the way.
//!
//! ```compile_fail
//! let secret = hallpass::kernel::secret::Secret::from_text("s".to_owned());
//! let copy = secret.clone();
//! ```
//! ```compile_fail
//! let secret = hallpass::kernel::secret::Secret::from_text("s".to_owned());
//! println!("{secret:?}");
//! ```
//! ```compile_fail
//! let secret = hallpass::kernel::secret::Secret::from_text("s".to_owned());
//! serde_json::to_string(&secret);
//! ```

use subtle::ConstantTimeEq;

use super::wiping;

/// Secret bytes, wiped when dropped.
pub struct Secret(Vec<u8>);

impl Secret {
    /// Takes ownership of the bytes; the caller's buffer is the secret's buffer, nothing is copied.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// Takes ownership of a text's bytes.
    pub fn from_text(text: String) -> Self {
        Self::new(text.into_bytes())
    }

    /// Exposes the bytes. Callers: the minters, the response writer, the command that prints them, the sealer.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// Exposes the secret as text, where it is UTF-8.
    pub fn expose_text(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }

    /// The number of bytes; it is not secret.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// How many bytes its buffer has beyond its own: none where it was written into a buffer of its size.
    pub fn spare(&self) -> usize {
        self.0.capacity() - self.0.len()
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        wiping::sweep(&mut self.0);
    }
}

impl PartialEq for Secret {
    /// Compares in time that depends on the lengths only.
    fn eq(&self, other: &Self) -> bool {
        self.0.as_slice().ct_eq(other.0.as_slice()).into()
    }
}

impl Eq for Secret {}
