//! Tokens: claims, credentials, and the operator's. Each carries 256 random bits; only hashes of them are stored.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::fault::Fault;

/// SHA-256 of a token. The tokens are random and long, so a fast hash without a salt gives nothing away.
pub(crate) type Hash = [u8; 32];

pub(crate) fn hash(bytes: &[u8]) -> Hash {
    Sha256::digest(bytes).into()
}

/// Compares in a time that does not depend on where the first difference is.
pub(crate) fn same(a: &Hash, b: &Hash) -> bool {
    std::hint::black_box(a.iter().zip(b).fold(0, |difference, (a, b)| difference | (a ^ b))) == 0
}

pub(crate) fn random<const N: usize>() -> Result<[u8; N], getrandom::Error> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}

/// A new claim token.
pub(crate) fn new_claim() -> Result<String, Fault> {
    Ok(format!("edge-claim-{}", hex::encode(random::<32>()?)))
}

/// The credential that a claim is turned into. Not drawn but derived, so that it can be given again to whoever shows
/// the same claim and nonce, without being stored: the salt is random and stays here, claim and nonce are not stored.
pub(crate) fn credential(salt: &[u8; 32], claim: &str, nonce: &[u8; 16]) -> String {
    let mut hasher = Sha256::new();
    hasher.update(b"edge-gateway-credential-v1");
    hasher.update(salt);
    hasher.update(hash(claim.as_bytes()));
    hasher.update(nonce);
    // Hashed twice: what is known of the outer hash tells nothing about the inner one's state.
    format!("edge-gateway-{}", hex::encode(hash(&hasher.finalize())))
}

/// The hash of the operator's token in `path`; makes the file, for its owner only, if there is none.
pub(crate) fn operator_token(path: &Path) -> io::Result<Hash> {
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(mut file) => {
            let token = format!("edge-operator-{}", hex::encode(random::<32>().map_err(io::Error::other)?));
            file.write_all(format!("{token}\n").as_bytes())?;
            file.sync_all()?;
            if let Some(parent) = path.parent() {
                File::open(parent)?.sync_all()?;
            }
            Ok(hash(token.as_bytes()))
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let text = std::fs::read_to_string(path)?;
            let token = text.trim();
            // A file that was cut off must not become an empty password.
            if token.len() < 32 {
                let message = "the file holds no token; delete it, and a new one is made at the next start";
                return Err(io::Error::new(io::ErrorKind::InvalidData, message));
            }
            Ok(hash(token.as_bytes()))
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_depends_on_all_that_it_is_made_of() {
        let one = credential(&[1; 32], "edge-claim-a", &[2; 16]);
        assert_eq!(one, credential(&[1; 32], "edge-claim-a", &[2; 16]));
        for other in [
            credential(&[0; 32], "edge-claim-a", &[2; 16]),
            credential(&[1; 32], "edge-claim-b", &[2; 16]),
            credential(&[1; 32], "edge-claim-a", &[3; 16]),
        ] {
            assert_ne!(one, other);
        }
        assert!(same(&hash(b"a"), &hash(b"a")) && !same(&hash(b"a"), &hash(b"b")));
    }

    #[test]
    fn an_operator_token_is_made_once_and_an_empty_one_never_taken() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("operator-token");
        let made = operator_token(&path).unwrap();
        assert_eq!(operator_token(&path).unwrap(), made);
        std::fs::write(&path, "\n").unwrap();
        assert_eq!(operator_token(&path).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
