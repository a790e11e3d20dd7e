//! Payloads and bodies with a type.

use std::any::type_name;
use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::{Error, Event, FromEvent, Result};

/// A value as JSON, coming in or going out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Json<T>(pub T);

/// A value in [postcard's](https://docs.rs/postcard) format, coming in or going out: smaller and faster than JSON, but
/// both sides must know the type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Postcard<T>(pub T);

/// What can be emitted or published: texts, bytes, [`Json`] and [`Postcard`].
pub trait ToBytes {
    /// The bytes.
    ///
    /// # Errors
    /// The value cannot be written in its format, such as a map with keys that are no texts in JSON.
    fn to_bytes(&self) -> Result<Cow<'_, [u8]>>;
}

/// The type's name for a message: without the path to it and without its parameters; tuples and the like as they are.
pub(crate) fn short_name<T>() -> &'static str {
    let name = type_name::<T>();
    let path = name.split('<').next().unwrap_or(name);
    if path.starts_with(char::is_alphabetic) { path.rsplit("::").next().unwrap_or(path) } else { name }
}

impl<'e, T: Deserialize<'e>> FromEvent<'e> for Json<T> {
    fn from_event(event: Event<'e>) -> Result<Self> {
        serde_json::from_slice(event.payload).map(Self).map_err(|error| {
            let lines_before =
                event.payload.split_inclusive(|byte| *byte == b'\n').take(error.line().saturating_sub(1));
            let at = lines_before.map(<[u8]>::len).sum::<usize>() + error.column();
            event.unexpected(&format!("the JSON of {}", short_name::<T>()), format_args!("{error}"), at)
        })
    }
}

impl<'e, T: Deserialize<'e>> FromEvent<'e> for Postcard<T> {
    fn from_event(event: Event<'e>) -> Result<Self> {
        postcard::from_bytes(event.payload).map(Self).map_err(|error| {
            event.unexpected(&format!("the postcard encoding of {}", short_name::<T>()), format_args!("{error}"), 0)
        })
    }
}

impl<T> std::ops::Deref for Json<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> std::ops::Deref for Postcard<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: Serialize> ToBytes for Json<T> {
    fn to_bytes(&self) -> Result<Cow<'_, [u8]>> {
        let bytes = serde_json::to_vec(&self.0);
        bytes.map(Cow::Owned).map_err(|error| Error::new(format_args!("{} as JSON: {error}", short_name::<T>())))
    }
}

impl<T: Serialize> ToBytes for Postcard<T> {
    fn to_bytes(&self) -> Result<Cow<'_, [u8]>> {
        let bytes = postcard::to_allocvec(&self.0);
        bytes.map(Cow::Owned).map_err(|error| Error::new(format_args!("{} as postcard: {error}", short_name::<T>())))
    }
}

impl ToBytes for [u8] {
    fn to_bytes(&self) -> Result<Cow<'_, [u8]>> {
        Ok(Cow::Borrowed(self))
    }
}

impl<const N: usize> ToBytes for [u8; N] {
    fn to_bytes(&self) -> Result<Cow<'_, [u8]>> {
        Ok(Cow::Borrowed(self))
    }
}

impl ToBytes for Vec<u8> {
    fn to_bytes(&self) -> Result<Cow<'_, [u8]>> {
        Ok(Cow::Borrowed(self))
    }
}

impl ToBytes for str {
    fn to_bytes(&self) -> Result<Cow<'_, [u8]>> {
        Ok(Cow::Borrowed(self.as_bytes()))
    }
}

impl ToBytes for String {
    fn to_bytes(&self) -> Result<Cow<'_, [u8]>> {
        Ok(Cow::Borrowed(self.as_bytes()))
    }
}
