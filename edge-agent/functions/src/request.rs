//! The import `request`: what a function asks for, checked.

use std::ops::RangeInclusive;

use agent_core::effect::Request;
use agent_core::request::HEADER;
use function_abi::Attributes;
use function_package::{Target, check_function_name};

use crate::host::{Host, Stop, is_field, list, shown, stop, text};
use crate::trap::TrapKind;

/// The methods of a request (RFC 9110, section 9; RFC 5789). CONNECT and TRACE are for proxies and faults.
const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/// Header fields that say how the message is sent, which is the gateway's to say.
const OURS: [&str; 9] =
    ["connection", "content-length", "expect", "host", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"];

/// How long one try may take, in milliseconds: less than any answer takes is a mistake, more holds a place that others wait
/// for.
const TIMEOUT_MS: RangeInclusive<u32> = 100..=120_000;
const DEFAULT_TIMEOUT_MS: u32 = 10_000;

/// How often a request may be sent. With waits that double up to an hour, twenty are half a day.
const TRIES: RangeInclusive<u32> = 1..=20;
const DEFAULT_TRIES: u32 = 5;

/// Longest tag in bytes: it comes back as an attribute.
const MAX_TAG_BYTES: usize = 1 << 10;

impl Host {
    /// `request`.
    pub(crate) fn request(&mut self, url: &[u8], head: &[u8], body: &[u8]) -> Result<(), Stop> {
        let bytes = url.len() + head.len() + body.len();
        let url = text("request", "URL", url)?;
        let target = match Target::parse(url) {
            Ok(target) => target,
            Err(error) => return wrong(format!("the URL {} cannot be used: {error}", shown(url.as_bytes()))),
        };
        let attributes = Attributes(head);
        if !attributes.are_whole() {
            return wrong("the head is damaged; it is encoded as attributes are".to_owned());
        }
        let mut request = Request {
            url: url.to_owned(),
            method: if body.is_empty() { "GET" } else { "POST" }.to_owned(),
            headers: Vec::new(),
            body: body.to_vec(),
            to: self.shared.identity.name.clone(),
            timeout_ms: DEFAULT_TIMEOUT_MS,
            tries: DEFAULT_TRIES,
            tag: None,
        };
        let mut known: Vec<&str> = Vec::new();
        for (name, value) in attributes {
            if let Some(field) = name.strip_prefix(HEADER) {
                request.headers.push(header(field, value)?);
                continue;
            }
            if known.contains(&name) {
                return wrong(format!("{} is said twice", shown(name.as_bytes())));
            }
            known.push(name);
            match name {
                "method" if METHODS.contains(&value) => request.method = value.to_owned(),
                "method" => {
                    return wrong(format!(
                        "{} is no method of a request; allowed are {}",
                        shown(value.as_bytes()),
                        list(METHODS.iter())
                    ));
                }
                "to" if check_function_name(value).is_ok() => request.to = value.to_owned(),
                "to" => return wrong(format!("{} is no name of a function", shown(value.as_bytes()))),
                "timeout_ms" => request.timeout_ms = number(name, value, TIMEOUT_MS)?,
                "tries" => request.tries = number(name, value, TRIES)?,
                "tag" if value.len() <= MAX_TAG_BYTES => request.tag = Some(value.to_owned()),
                "tag" => {
                    return wrong(format!(
                        "the tag is {} bytes long; at most {MAX_TAG_BYTES} are allowed",
                        value.len()
                    ));
                }
                _ => {
                    return wrong(format!(
                        "the head has {}, which is not known; allowed are method, header.NAME, to, timeout_ms, tries and tag",
                        shown(name.as_bytes())
                    ));
                }
            }
        }
        self.check_allowed(&request, &target)?;
        self.admit("request", bytes)?;
        self.effects.push(agent_core::Effect::Request(request));
        Ok(())
    }

    fn check_allowed(&self, request: &Request, target: &Target) -> Result<(), Stop> {
        let (shared, permissions) = (&self.shared, &self.shared.permissions);
        if !permissions.may_request(target) {
            let Target { host, port, .. } = target;
            return stop(
                TrapKind::NotAllowed,
                format!(
                    "request: it may not send requests to {} at port {port}; allowed: {}. Add the host to its permissions, \
                     with the port if that is not the scheme's",
                    shown(host.as_bytes()),
                    list(permissions.hosts.iter())
                ),
            );
        }
        if request.to != shared.identity.name && !permissions.answers.contains(&request.to) {
            return stop(
                TrapKind::NotAllowed,
                format!(
                    "request: its answers may not go to the function {}; allowed: itself, and {}. Add it to its permissions",
                    request.to,
                    list(permissions.answers.iter())
                ),
            );
        }
        Ok(())
    }
}

fn wrong<T>(what: String) -> Result<T, Stop> {
    stop(TrapKind::BadArgument, format!("request: {what}"))
}

fn header(name: &str, value: &str) -> Result<(String, String), Stop> {
    let lower = name.to_ascii_lowercase();
    if !is_field(&lower, value) {
        let (name, value) = (shown(name.as_bytes()), shown(value.as_bytes()));
        return wrong(format!("{name}: {value} is no header field (RFC 9110, section 5)"));
    }
    if OURS.contains(&lower.as_str()) || lower.starts_with("proxy-") {
        return wrong(format!("the header field {lower} is the gateway's to say; take it out"));
    }
    Ok((lower, value.to_owned()))
}

fn number(name: &str, value: &str, allowed: RangeInclusive<u32>) -> Result<u32, Stop> {
    match value.parse() {
        Ok(number) if allowed.contains(&number) => Ok(number),
        _ => wrong(format!(
            "{name} is {}; allowed is a whole number from {} to {}",
            shown(value.as_bytes()),
            allowed.start(),
            allowed.end()
        )),
    }
}
