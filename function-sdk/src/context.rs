//! What a handler reads besides its event, and what it wants done.

use std::str::{self, FromStr};
use std::time::Duration;

use function_abi::{LogLevel, Priority, PublishFlags};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::event::shown;
#[cfg(target_family = "wasm")]
use crate::guest::Host;
use crate::payload::short_name;
#[cfg(not(target_family = "wasm"))]
use crate::testing::Host;
use crate::{Error, Event, Request, Result, ToBytes};

/// The handler's view of the gateway.
///
/// Nothing here waits. Reads see this run's own writes. Effects (state, emit, publish) take place together after the
/// handler returned `Ok`, or not at all; one that the manifest does not allow, or that is over a limit, ends the run.
pub struct Context<'e> {
    event: Event<'e>,
    host: &'e mut Host,
}

impl<'e> Context<'e> {
    pub(crate) fn new(event: Event<'e>, host: &'e mut Host) -> Self {
        Self { event, host }
    }

    /// The event that this run is about.
    pub fn event(&self) -> Event<'e> {
        self.event
    }

    /// A configuration value, read as any type that can be parsed.
    ///
    /// # Errors
    /// There is no such key in the manifest's `[config]`, or the value cannot be read as this type.
    pub fn config<T: FromStr>(&mut self, key: &str) -> Result<T> {
        self.config_opt(key)?.ok_or_else(|| {
            Error::new(format_args!("there is no configuration value {key:?}; name it under [config] in function.toml"))
        })
    }

    /// A configuration value that may be absent.
    ///
    /// # Errors
    /// The value is there, but cannot be read as this type.
    pub fn config_opt<T: FromStr>(&mut self, key: &str) -> Result<Option<T>> {
        let Some(value) = self.host.config_get(key.as_bytes()) else { return Ok(None) };
        match str::from_utf8(&value).ok().and_then(|text| text.parse().ok()) {
            Some(value) => Ok(Some(value)),
            None => Err(Error::new(format_args!(
                "the configuration value {key:?} is \"{}\", which cannot be read as {}",
                shown(&value),
                short_name::<T>()
            ))),
        }
    }

    /// A secret of the gateway that the manifest names under `[allow] secrets`; none if the gateway has none of this name.
    /// Whatever the function does with it shows it: a log line, a record, an error.
    ///
    /// # Errors
    /// It is no text, which no gateway has.
    pub fn secret(&mut self, name: &str) -> Result<Option<String>> {
        let Some(value) = self.host.secret_get(name.as_bytes()) else { return Ok(None) };
        String::from_utf8(value).map(Some).map_err(|_| Error::new(format_args!("the secret {name:?} is not UTF-8")))
    }

    /// A state value as bytes.
    pub fn state_get(&mut self, key: impl AsRef<[u8]>) -> Option<Vec<u8>> {
        self.host.state_get(key.as_ref())
    }

    /// The keys of the state that begin with `prefix`, in the order of their bytes, writes of this run included. Each is
    /// asked for by itself, so take no more of them than are needed.
    pub fn state_keys(&mut self, prefix: impl AsRef<[u8]>) -> StateKeys<'_> {
        StateKeys { host: self.host, prefix: prefix.as_ref().to_vec(), after: Some(Vec::new()) }
    }

    /// Effect: stores a state value.
    pub fn state_put(&mut self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
        self.host.state_put(key.as_ref(), value.as_ref(), None);
    }

    /// Effect: stores a state value that is absent for events which the gateway receives when this time has passed since the
    /// present one: in whole seconds, 136 years at most.
    ///
    /// # Errors
    /// The time is shorter than a second, or longer than that.
    pub fn state_put_for(&mut self, ttl: Duration, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result {
        let ttl_s = ttl_s(ttl, key.as_ref())?;
        self.host.state_put(key.as_ref(), value.as_ref(), Some(ttl_s));
        Ok(())
    }

    /// Effect: stores a state value if the present one is `expected` (`None`: absent); answers whether it was. Events of one
    /// partition run one at a time, so nothing comes between the comparison and the effect.
    pub fn state_put_if(&mut self, key: impl AsRef<[u8]>, expected: Option<&[u8]>, value: impl AsRef<[u8]>) -> bool {
        let is = self.host.state_get(key.as_ref()).as_deref() == expected;
        if is {
            self.host.state_put(key.as_ref(), value.as_ref(), None);
        }
        is
    }

    /// Effect: removes a state value; an absent one is no error.
    pub fn state_delete(&mut self, key: impl AsRef<[u8]>) {
        self.host.state_delete(key.as_ref());
    }

    /// A state value that [`Self::set_state`] stored.
    ///
    /// # Errors
    /// The stored bytes are no `T`: an earlier version of the function stored another type under this key.
    pub fn state<T: DeserializeOwned>(&mut self, key: &str) -> Result<Option<T>> {
        let Some(bytes) = self.host.state_get(key.as_bytes()) else { return Ok(None) };
        postcard::from_bytes(&bytes).map(Some).map_err(|error| {
            Error::new(format_args!(
                "the state {key:?} ({} bytes) is no {}: {error}; did its type change? use a new key or read the old type",
                bytes.len(),
                short_name::<T>()
            ))
        })
    }

    /// Effect: stores a state value of any type, in postcard's encoding.
    ///
    /// # Errors
    /// The value cannot be encoded.
    pub fn set_state<T: Serialize>(&mut self, key: &str, value: &T) -> Result {
        self.host.state_put(key.as_bytes(), &encode(key, value)?, None);
        Ok(())
    }

    /// Effect: the same for some time, as [`Self::state_put_for`] says.
    ///
    /// # Errors
    /// The value cannot be encoded, or the time is shorter than a second or too long.
    pub fn set_state_for<T: Serialize>(&mut self, ttl: Duration, key: &str, value: &T) -> Result {
        let ttl_s = ttl_s(ttl, key.as_bytes())?;
        self.host.state_put(key.as_bytes(), &encode(key, value)?, Some(ttl_s));
        Ok(())
    }

    /// How many bytes a blob has, `BUCKET/NAME` or what [`Event::blob`] answers; `None` if there is none. Blobs are read as
    /// they were before this run: what it stores itself is not seen.
    pub fn blob_size(&mut self, name: &str) -> Option<u32> {
        self.host.blob_size(name)
    }

    /// Reads a piece of a blob into `out`, from `offset` on; how many bytes that were, which is 0 from its end on. `None` if
    /// there is no such blob. However large it is, it can be walked through in a buffer of some kilobytes.
    pub fn blob_read(&mut self, name: &str, offset: u32, out: &mut [u8]) -> Option<usize> {
        self.host.blob_get(name, offset, out)
    }

    /// Effect: stores a blob under a name, `BUCKET/NAME`. An empty `content_type` is `application/octet-stream`.
    ///
    /// # Errors
    /// The body cannot be encoded.
    pub fn blob_put(&mut self, name: &str, content_type: &str, body: &(impl ToBytes + ?Sized)) -> Result {
        self.host.blob_put(name, content_type, &body.to_bytes()?);
        Ok(())
    }

    /// Effect: removes a blob; an absent one is no error.
    pub fn blob_delete(&mut self, name: &str) {
        self.host.blob_delete(name);
    }

    /// Effect: a record to a cloud stream.
    ///
    /// # Errors
    /// The body cannot be encoded.
    pub fn emit(&mut self, stream: &str, body: &(impl ToBytes + ?Sized)) -> Result {
        self.host.emit(stream, &body.to_bytes()?, Priority::Normal);
        Ok(())
    }

    /// Effect: a record to a cloud stream that goes before all normal ones when the link is narrow.
    ///
    /// # Errors
    /// The body cannot be encoded.
    pub fn emit_urgent(&mut self, stream: &str, body: &(impl ToBytes + ?Sized)) -> Result {
        self.host.emit(stream, &body.to_bytes()?, Priority::High);
        Ok(())
    }

    /// Effect: an MQTT message with QoS 1, not retained.
    ///
    /// # Errors
    /// The payload cannot be encoded.
    pub fn publish(&mut self, topic: &str, payload: &(impl ToBytes + ?Sized)) -> Result {
        self.publish_with(topic, payload, PublishFlags { qos: 1, retain: false })
    }

    /// Effect: an MQTT message with the QoS and retain flag of one's choice.
    ///
    /// # Errors
    /// The payload cannot be encoded, or the QoS is not 0, 1 or 2.
    pub fn publish_with(&mut self, topic: &str, payload: &(impl ToBytes + ?Sized), flags: PublishFlags) -> Result {
        if flags.qos > 2 {
            return Err(Error::new(format_args!("QoS {} for {topic:?}; allowed are 0, 1 and 2", flags.qos)));
        }
        self.host.publish(topic, &payload.to_bytes()?, flags);
        Ok(())
    }

    /// Effect: a message to the function that reads this queue.
    ///
    /// # Errors
    /// The body cannot be encoded.
    pub fn enqueue(&mut self, queue: &str, body: &(impl ToBytes + ?Sized)) -> Result {
        self.enqueue_after(Duration::ZERO, queue, body)
    }

    /// Effect: the same, not before some time has passed: to the millisecond, and 49 days at most.
    ///
    /// # Errors
    /// The body cannot be encoded, or the delay is longer.
    pub fn enqueue_after(&mut self, delay: Duration, queue: &str, body: &(impl ToBytes + ?Sized)) -> Result {
        let delay_ms = u32::try_from(delay.as_millis()).map_err(|_| {
            Error::new(format_args!("a delay of {delay:?} for the queue {queue:?}; allowed are 49 days"))
        })?;
        self.host.enqueue(queue, &body.to_bytes()?, delay_ms);
        Ok(())
    }

    /// Effect: the answer to the HTTP request that the event is. Without one it is answered with 204 (no content).
    ///
    /// # Errors
    /// The body cannot be encoded.
    pub fn respond(&mut self, status: u16, body: &(impl ToBytes + ?Sized)) -> Result {
        self.respond_with(status, &[], body)
    }

    /// Effect: the same, with header fields.
    ///
    /// # Errors
    /// The body cannot be encoded.
    pub fn respond_with(&mut self, status: u16, headers: &[(&str, &str)], body: &(impl ToBytes + ?Sized)) -> Result {
        self.host.respond(status, headers, &body.to_bytes()?);
        Ok(())
    }

    /// Effect: says what a property of the event's device is now. The control plane keeps the latest value of each, whatever
    /// order the reports arrive in.
    ///
    /// # Errors
    /// The value cannot be encoded.
    pub fn report(&mut self, property: &str, value: &(impl ToBytes + ?Sized)) -> Result {
        self.host.twin_report(property, &value.to_bytes()?);
        Ok(())
    }

    /// A log line with named values, which whoever collects logs can search:
    /// `cx.log_with(LogLevel::Warn, "too hot", &[("celsius", "31.5")])`.
    pub fn log_with(&mut self, level: LogLevel, text: impl AsRef<str>, fields: &[(&str, &str)]) {
        self.host.log_with(level, text.as_ref(), fields);
    }

    /// Effect: adds to a counter, which belongs to the function and not to the partition. What it comes to in each hour is told
    /// to the control plane.
    ///
    /// # Errors
    /// The value is negative or not finite.
    pub fn count(&mut self, name: &str, value: f64) -> Result {
        if !value.is_finite() || value < 0.0 {
            return Err(Error::new(format_args!("{value} cannot be added to the counter {name:?}; it only grows")));
        }
        self.host.count(name, value);
        Ok(())
    }

    /// Effect: adds a value to a distribution of the function, of which the control plane shows number, sum, extremes and
    /// percentiles for each hour.
    ///
    /// # Errors
    /// The value is not finite.
    pub fn observe(&mut self, name: &str, value: f64) -> Result {
        if !value.is_finite() {
            return Err(Error::new(format_args!("{value} cannot be observed as {name:?}: it is not finite")));
        }
        self.host.observe(name, value);
        Ok(())
    }

    /// Effect: an HTTP request. Nothing waits for its answer, which comes as an event of kind
    /// [`Answer`](function_abi::EventKind::Answer).
    pub fn request(&mut self, request: Request) {
        self.host.request(request);
    }

    /// A log line: something failed.
    pub fn error(&mut self, text: impl AsRef<str>) {
        self.host.log(LogLevel::Error, text.as_ref());
    }

    /// A log line: something is odd.
    pub fn warn(&mut self, text: impl AsRef<str>) {
        self.host.log(LogLevel::Warn, text.as_ref());
    }

    /// A log line: something worth knowing happened.
    pub fn info(&mut self, text: impl AsRef<str>) {
        self.host.log(LogLevel::Info, text.as_ref());
    }

    /// A log line for whoever looks for a fault.
    pub fn debug(&mut self, text: impl AsRef<str>) {
        self.host.log(LogLevel::Debug, text.as_ref());
    }

    /// A random value: `cx.random::<u64>()`. The gateway keeps the seed, so that a run can be replayed.
    pub fn random<T: Random>(&mut self) -> T {
        T::from_random(|bytes| self.host.random_fill(bytes))
    }
}

fn encode<T: Serialize>(key: &str, value: &T) -> Result<Vec<u8>> {
    postcard::to_allocvec(value)
        .map_err(|error| Error::new(format_args!("the state {key:?} cannot be stored: {error}")))
}

fn ttl_s(ttl: Duration, key: &[u8]) -> Result<u32> {
    match u32::try_from(ttl.as_secs()) {
        Ok(seconds @ 1..) => Ok(seconds),
        _ => Err(Error::new(format_args!(
            "a time to live of {ttl:?} for the state \"{}\"; allowed are 1 to {} seconds",
            shown(key),
            u32::MAX
        ))),
    }
}

/// Keys of the state, one by one; see [`Context::state_keys`].
pub struct StateKeys<'c> {
    host: &'c mut Host,
    prefix: Vec<u8>,
    // `None`: there are no more.
    after: Option<Vec<u8>>,
}

impl Iterator for StateKeys<'_> {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        let after = self.after.take()?;
        self.after = self.host.state_next(&self.prefix, &after);
        self.after.clone()
    }
}

/// What [`Context::random`] can make.
pub trait Random {
    /// Makes a value of the random bytes that `fill` writes.
    fn from_random(fill: impl FnMut(&mut [u8])) -> Self;
}

impl<const N: usize> Random for [u8; N] {
    fn from_random(mut fill: impl FnMut(&mut [u8])) -> Self {
        let mut bytes = [0; N];
        fill(&mut bytes);
        bytes
    }
}

impl Random for u32 {
    fn from_random(fill: impl FnMut(&mut [u8])) -> Self {
        Self::from_le_bytes(Random::from_random(fill))
    }
}

impl Random for u64 {
    fn from_random(fill: impl FnMut(&mut [u8])) -> Self {
        Self::from_le_bytes(Random::from_random(fill))
    }
}

/// At least 0, less than 1, evenly spread.
impl Random for f64 {
    fn from_random(fill: impl FnMut(&mut [u8])) -> Self {
        // The 53 bits that a mantissa holds.
        (u64::from_random(fill) >> 11) as f64 / (1u64 << 53) as f64
    }
}
