//! Who vouches for a package: Ed25519 (RFC 8032) over its digest.
//!
//! What is signed begins with the name of this protocol, so that a signature made for another purpose with the same key
//! can never pass for one over a function.

use std::fmt;
use std::str::FromStr;

use ed25519_dalek::Signer as _;
use sha2::{Digest as _, Sha256};

use crate::Digest;
use crate::text_form::{self, TextFormError, serde_by_text_or_bytes};

const DOMAIN: &[u8; 17] = b"edge-function-v1\0";
const SECRET_PREFIX: &str = "edge-secret-key-v1";
const PUBLIC_PREFIX: &str = "edge-public-key-v1";
const SIGNATURE_PREFIX: &str = "edge-signature-v1";

/// A publisher's secret key. Its memory is overwritten when it is dropped, and it never shows in debug output.
pub struct SigningKey(ed25519_dalek::SigningKey);

/// A publisher's public key; as text `edge-public-key-v1:` and 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PublicKey(ed25519_dalek::VerifyingKey);

/// Names a public key: the first 8 bytes of its SHA-256. Good to find a key, not to trust one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId(pub [u8; 8]);

/// A signature over a digest; as text `edge-signature-v1:`, the key's id, `:`, and 128 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Signature {
    /// Whose signature it claims to be.
    pub key_id: KeyId,
    /// R and S as in RFC 8032, section 5.1.6.
    pub bytes: [u8; 64],
}

/// Why a signature does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// It names another key.
    #[error("the signature was made with the key {found}, not with the trusted key {wanted}")]
    OtherKey {
        /// The key that was asked.
        wanted: KeyId,
        /// The key that the signature names.
        found: KeyId,
    },
    /// The mathematics say no.
    #[error(
        "the signature by the key {key} does not fit the digest {digest}: the package or the signature was changed"
    )]
    Wrong {
        /// The key that was asked.
        key: KeyId,
        /// What should have been signed.
        digest: Digest,
    },
}

fn signed_bytes(digest: &Digest) -> [u8; DOMAIN.len() + 32] {
    let mut bytes = [0; DOMAIN.len() + 32];
    bytes[..DOMAIN.len()].copy_from_slice(DOMAIN);
    bytes[DOMAIN.len()..].copy_from_slice(digest.as_bytes());
    bytes
}

impl SigningKey {
    /// A new key from the operating system's generator.
    ///
    /// # Errors
    /// The operating system has no random numbers to give.
    pub fn generate() -> Result<Self, getrandom::Error> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed)?;
        Ok(Self(ed25519_dalek::SigningKey::from_bytes(&seed)))
    }

    /// The secret as text, `edge-secret-key-v1:` and 64 hexadecimal digits: for a file that only its owner may read.
    pub fn to_text(&self) -> String {
        format!("{SECRET_PREFIX}:{}", hex::encode(self.0.as_bytes()))
    }

    /// Reads what [`Self::to_text`] wrote; white space around it, such as a file's last newline, is ignored.
    ///
    /// # Errors
    /// The text is none. It is not part of the error.
    pub fn from_text(text: &str) -> Result<Self, TextFormError> {
        let form = "edge-secret-key-v1: and 64 digits 0-9a-f";
        let seed = text_form::read(text.trim(), SECRET_PREFIX).ok_or(TextFormError { what: "secret key", form })?;
        Ok(Self(ed25519_dalek::SigningKey::from_bytes(&seed)))
    }

    /// What others need to check this key's signatures.
    pub fn public_key(&self) -> PublicKey {
        PublicKey(self.0.verifying_key())
    }

    /// Signs a digest.
    pub fn sign(&self, digest: &Digest) -> Signature {
        let signature = self.0.sign(&signed_bytes(digest));
        Signature { key_id: self.public_key().key_id(), bytes: signature.to_bytes() }
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.public_key().key_id())
    }
}

impl PublicKey {
    /// The name of this key.
    pub fn key_id(&self) -> KeyId {
        let hash: [u8; 32] = Sha256::digest(self.0.as_bytes()).into();
        let [a, b, c, d, e, f, g, h, ..] = hash;
        KeyId([a, b, c, d, e, f, g, h])
    }

    /// Checks a signature, strictly: one form of it only, and no key of small order.
    ///
    /// # Errors
    /// Another key made it, or it does not fit.
    pub fn verify(&self, digest: &Digest, signature: &Signature) -> Result<(), SignatureError> {
        let key = self.key_id();
        if signature.key_id != key {
            return Err(SignatureError::OtherKey { wanted: key, found: signature.key_id });
        }
        let bytes = ed25519_dalek::Signature::from_bytes(&signature.bytes);
        let verdict = self.0.verify_strict(&signed_bytes(digest), &bytes);
        verdict.map_err(|_| SignatureError::Wrong { key, digest: *digest })
    }

    fn array(&self) -> [u8; 32] {
        self.0.to_bytes()
    }

    fn from_array(bytes: [u8; 32]) -> Option<Self> {
        let key = ed25519_dalek::VerifyingKey::from_bytes(&bytes).ok()?;
        // With a key of small order one signature fits many messages.
        (!key.is_weak()).then_some(Self(key))
    }
}

impl Signature {
    fn array(&self) -> [u8; 72] {
        let mut bytes = [0; 72];
        bytes[..8].copy_from_slice(&self.key_id.0);
        bytes[8..].copy_from_slice(&self.bytes);
        bytes
    }

    fn from_array(bytes: [u8; 72]) -> Option<Self> {
        let (key_id, rest) = bytes.split_first_chunk()?;
        Some(Self { key_id: KeyId(*key_id), bytes: rest.try_into().ok()? })
    }
}

serde_by_text_or_bytes!(PublicKey, 32, "a public key");
serde_by_text_or_bytes!(Signature, 72, "a signature");

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        text_form::write(f, PUBLIC_PREFIX, self.0.as_bytes())
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.key_id())
    }
}

impl FromStr for PublicKey {
    type Err = TextFormError;

    fn from_str(text: &str) -> Result<Self, TextFormError> {
        let form = "edge-public-key-v1: and 64 digits 0-9a-f of a point on the curve";
        let key = text_form::read(text, PUBLIC_PREFIX).and_then(Self::from_array);
        key.ok_or(TextFormError { what: "public key", form })
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        text_form::write_hex(f, &self.0)
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

impl FromStr for KeyId {
    type Err = TextFormError;

    fn from_str(text: &str) -> Result<Self, TextFormError> {
        text_form::read_hex(text).map(Self).ok_or(TextFormError { what: "key id", form: "16 digits 0-9a-f" })
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SIGNATURE_PREFIX}:{}:", self.key_id)?;
        text_form::write_hex(f, &self.bytes)
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signature(by {})", self.key_id)
    }
}

impl FromStr for Signature {
    type Err = TextFormError;

    fn from_str(text: &str) -> Result<Self, TextFormError> {
        let form = "edge-signature-v1:, the key's id (16 digits 0-9a-f), a colon, and 128 digits 0-9a-f";
        let read = || {
            let (key_id, bytes) = text.strip_prefix(SIGNATURE_PREFIX)?.strip_prefix(':')?.split_once(':')?;
            Some(Self { key_id: key_id.parse().ok()?, bytes: text_form::read_hex(bytes)? })
        };
        read().ok_or(TextFormError { what: "signature", form })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8032, section 7.1, TEST 1.
    const SECRET: &str = "edge-secret-key-v1:9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
    const PUBLIC: &str = "edge-public-key-v1:d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";

    #[test]
    fn keys_are_those_of_the_standard() {
        let key = SigningKey::from_text(&format!("{SECRET}\n")).unwrap();
        assert_eq!(key.to_text(), SECRET);
        assert_eq!(key.public_key().to_string(), PUBLIC);
        assert_eq!(PUBLIC.parse(), Ok(key.public_key()));
        let shown = format!("{key:?}");
        assert_eq!(shown, format!("SigningKey({})", key.public_key().key_id()));
        assert!(!SigningKey::from_text("edge-secret-key-v1:9d61").unwrap_err().to_string().contains("9d61"));
    }

    #[test]
    fn a_signature_fits_its_key_and_digest_only() {
        let (key, other) = (SigningKey::from_text(SECRET).unwrap(), SigningKey::generate().unwrap());
        let digest = Digest::of(b"a");
        let signature = key.sign(&digest);
        assert_eq!(key.public_key().verify(&digest, &signature), Ok(()));
        assert!(matches!(
            key.public_key().verify(&Digest::of(b"b"), &signature),
            Err(SignatureError::Wrong { digest, .. }) if digest == Digest::of(b"b")
        ));
        assert!(matches!(other.public_key().verify(&digest, &signature), Err(SignatureError::OtherKey { .. })));
        let forged = Signature { key_id: other.public_key().key_id(), ..signature };
        assert!(matches!(other.public_key().verify(&digest, &forged), Err(SignatureError::Wrong { .. })));
        for bit in 0..512 {
            let mut changed = signature;
            changed.bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(key.public_key().verify(&digest, &changed).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_signature_over_the_bare_digest_does_not_count() {
        let key = SigningKey::from_text(SECRET).unwrap();
        let digest = Digest::of(b"a");
        let bytes = key.0.sign(digest.as_bytes()).to_bytes();
        let signature = Signature { key_id: key.public_key().key_id(), bytes };
        assert!(key.public_key().verify(&digest, &signature).is_err());
    }

    #[test]
    fn signatures_and_keys_survive_text_and_bytes() {
        let key = SigningKey::from_text(SECRET).unwrap();
        let signature = key.sign(&Digest::of(b"a"));
        assert_eq!(signature.to_string().parse(), Ok(signature));
        let json = serde_json::to_string(&(signature, key.public_key())).unwrap();
        assert_eq!(serde_json::from_str::<(Signature, PublicKey)>(&json).unwrap(), (signature, key.public_key()));
        let bytes = postcard::to_allocvec(&(signature, key.public_key())).unwrap();
        assert_eq!(bytes.len(), 1 + 72 + 1 + 32);
        assert_eq!(postcard::from_bytes::<(Signature, PublicKey)>(&bytes).unwrap(), (signature, key.public_key()));
    }

    #[test]
    fn weak_and_broken_keys_are_refused() {
        // The neutral element, and a y that is on no point of the curve.
        for first in ["01", "02"] {
            let text = format!("{PUBLIC_PREFIX}:{first}{}", "00".repeat(31));
            assert!(text.parse::<PublicKey>().is_err(), "{text}");
        }
    }
}
