//! An HTTP request that a function wants sent.

use crate::{Error, Result, ToBytes};

/// An HTTP request; [`Context::request`](crate::Context::request) lists it. What is not said has the default of `docs/abi.md`.
///
/// ```
/// use function_sdk::{Context, Event, EventKind, Request, Result, function, testing::Gateway};
///
/// #[function]
/// fn on_event(event: Event<'_>, cx: &mut Context) -> Result {
///     if event.kind == EventKind::Answer {
///         // Later, as an event of its own.
///         let failed = event.attribute("error").unwrap_or("it did not");
///         return cx.emit("told", &format!("{}: {failed}", event.attribute("tag").unwrap_or("?")));
///     }
///     let body = Request::new("https://hooks.example.org/alarm").json(&["hot"])?;
///     cx.request(body.header("authorization", "Bearer 1234").tag("alarm").tries(3));
///     Ok(())
/// }
///
/// let mut gateway = Gateway::new(on_event_handler);
/// let run = gateway.event("dev-1", "alerts/a", "hot").expect_ok();
/// assert_eq!(run.requested[0].body, br#"["hot"]"#);
/// let run = gateway.answer("dev-1", "https://hooks.example.org/alarm", &[("tag", "alarm"), ("error", "no link")], "");
/// assert_eq!(run.emitted[0].text(), "alarm: no link");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "nothing is sent unless it is given to Context::request"]
pub struct Request {
    pub(crate) url: String,
    /// As they cross the boundary.
    pub(crate) head: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    /// A request to this URL: absolute, http or https, and to a host that stands in the manifest under `[allow]` hosts.
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: url.into(), head: Vec::new(), body: Vec::new() }
    }

    fn with(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.head.push((name.into(), value.into()));
        self
    }

    /// The method; without it POST if there is a body, else GET.
    pub fn method(self, method: &str) -> Self {
        self.with("method", method)
    }

    /// A header field; as many as you like.
    pub fn header(self, name: &str, value: impl Into<String>) -> Self {
        self.with(format!("header.{name}"), value)
    }

    /// The body.
    ///
    /// # Errors
    /// It cannot be encoded.
    pub fn body(mut self, body: &(impl ToBytes + ?Sized)) -> Result<Self> {
        self.body = body.to_bytes()?.into_owned();
        Ok(self)
    }

    /// The body, as JSON, with the header field that says so.
    ///
    /// # Errors
    /// It cannot be encoded.
    pub fn json(mut self, body: &impl serde::Serialize) -> Result<Self> {
        self.body = serde_json::to_vec(body)
            .map_err(|error| Error::new(format_args!("the body of a request to {:?} is no JSON: {error}", self.url)))?;
        Ok(self.header("content-type", "application/json"))
    }

    /// The function that gets the answer; without it this one. It must stand in the manifest under `[allow]` answers.
    pub fn answer_to(self, function: &str) -> Self {
        self.with("to", function)
    }

    /// How long one attempt may take, in milliseconds, 100 to 120,000; without it 10,000.
    pub fn timeout_ms(self, timeout_ms: u32) -> Self {
        self.with("timeout_ms", timeout_ms.to_string())
    }

    /// How often it is sent at most, 1 to 20; without it 5.
    pub fn tries(self, tries: u32) -> Self {
        self.with("tries", tries.to_string())
    }

    /// A text of at most 1,024 bytes, which the answer brings back as the attribute `tag`.
    pub fn tag(self, tag: impl Into<String>) -> Self {
        self.with("tag", tag)
    }
}
