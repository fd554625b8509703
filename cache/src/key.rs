//! [`Key`]: the name of some work.

use crate::digest::hash_newtype;
use crate::encode::{EncodeError, Value};

hash_newtype! {
    /// The BLAKE3 hash of a description of work: equal keys, same work.
    Key
}

impl Key {
    /// Hashes the canonical encoding of `value` under a domain, so that two kinds of description
    /// never share a key.
    ///
    /// # Errors
    /// [`EncodeError`] if the value holds a path that was not replaced by its digest.
    pub fn of(domain: &str, value: &Value) -> Result<Self, EncodeError> {
        let mut hasher = blake3::Hasher::new_derive_key(domain);
        value.encode(&mut |bytes| {
            hasher.update(bytes);
        })?;
        Ok(Self(*hasher.finalize().as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains_keep_keys_apart() {
        let value = Value::Text("x".to_owned());
        assert_ne!(Key::of("a", &value).unwrap(), Key::of("b", &value).unwrap());
    }
}
