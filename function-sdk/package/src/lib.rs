//! A function as it travels: module, manifest, digest, signature.
