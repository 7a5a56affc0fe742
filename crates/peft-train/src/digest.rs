//! SHA-256 digests as text.

use sha2::{Digest, Sha256};

/// The digest of what was hashed, in hexadecimal digits.
pub(crate) fn hex(hash: Sha256) -> String {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
