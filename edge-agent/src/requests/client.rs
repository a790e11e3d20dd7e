//! One try of a request, within what may be reached.

use std::error::Error;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use agent_core::address::Reachable;
use agent_core::request::{Request, Tried};
use function_package::Target;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::RETRY_AFTER;
use reqwest::{Method, Response, Url, redirect};

use crate::config::Requests as Config;
use crate::link::AGENT_VERSION;
use crate::triggers::http::fields;

/// The header field that tells a server that it knows a request already (draft-ietf-httpapi-idempotency-key-header).
const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// Sends requests to what may be reached, and to nothing else.
#[derive(Debug)]
pub struct Client {
    http: reqwest::Client,
    reachable: Arc<Reachable>,
    max_answer_bytes: usize,
}

/// What came of one try.
#[derive(Debug)]
pub struct Sent {
    /// For the decision what to do next.
    pub tried: Tried,
    /// The status, if an answer came.
    pub status: Option<u16>,
    /// Its header fields, as attributes.
    pub headers: Vec<(String, String)>,
    /// Its body; empty if that was too long.
    pub body: Vec<u8>,
    /// What failed, if something did.
    pub error: Option<String>,
}

impl Sent {
    /// What went wrong, in words, where something did.
    pub fn cause(&self) -> String {
        match (&self.error, self.status) {
            (Some(error), _) => error.clone(),
            (None, Some(status)) => format!("the server answered {status}"),
            (None, None) => "no answer came".to_owned(),
        }
    }

    fn without_answer(tried: Tried, error: String) -> Self {
        Self { tried, status: None, headers: Vec::new(), body: Vec::new(), error: Some(error) }
    }
}

/// An address that functions may not reach.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{host} is at {address}, which is no public address; the operator can allow it under requests.private_addresses of the \
     gateway's configuration"
)]
struct Refused {
    host: String,
    address: IpAddr,
}

/// Finds the addresses of a name, and leaves out what may not be reached. What it answers is what is connected to, so that no
/// name can be at one address for the check and at another for the connection.
#[derive(Debug)]
struct Resolver(Arc<Reachable>);

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let reachable = self.0.clone();
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let permitted = permitted(&reachable, name.as_str(), found)?;
            Ok(Box::new(permitted.into_iter()) as Addrs)
        })
    }
}

fn permitted(reachable: &Reachable, host: &str, mut found: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, Refused> {
    let refused = found.iter().find(|address| !reachable.permits(address.ip())).map(SocketAddr::ip);
    found.retain(|address| reachable.permits(address.ip()));
    match refused {
        Some(address) if found.is_empty() => Err(Refused { host: host.to_owned(), address }),
        _ => Ok(found),
    }
}

impl Client {
    /// A client for what the configuration lets functions reach.
    ///
    /// # Errors
    /// There is no usable set-up for TLS.
    pub fn new(config: Config) -> Result<Self, reqwest::Error> {
        let reachable = Arc::new(config.private_addresses);
        let http = reqwest::Client::builder()
            .user_agent(format!("edge-agent/{AGENT_VERSION}"))
            // Where it leads to is the function's to judge: it may not be allowed to go there.
            .redirect(redirect::Policy::none())
            .referer(false)
            // A proxy would connect to what it likes.
            .no_proxy()
            .dns_resolver(Arc::new(Resolver(reachable.clone())))
            .build()?;
        Ok(Self { http, reachable, max_answer_bytes: config.max_answer_bytes })
    }

    /// Sends a request once. `number` is what its idempotency key is made of.
    pub async fn send(&self, request: &Request, number: &str) -> Sent {
        let limit = Duration::from_millis(request.timeout_ms.into());
        match tokio::time::timeout(limit, self.exchange(request, number)).await {
            Ok(sent) => sent,
            Err(_) => {
                let error = format!("no whole answer came within {} ms", request.timeout_ms);
                Sent::without_answer(Tried::Unanswered, error)
            }
        }
    }

    async fn exchange(&self, request: &Request, number: &str) -> Sent {
        let (url, method) = match self.checked(request) {
            Ok(checked) => checked,
            Err(error) => return Sent::without_answer(Tried::Hopeless, error),
        };
        let mut out = self.http.request(method, url).body(request.body.clone());
        for (name, value) in &request.headers {
            out = out.header(name, value);
        }
        if !request.headers.iter().any(|(name, _)| name == IDEMPOTENCY_KEY) {
            // A text in quotes, as the draft has it.
            out = out.header(IDEMPOTENCY_KEY, format!("\"{number}\""));
        }
        match out.send().await {
            Ok(response) => self.read(response).await,
            Err(error) => failed(error),
        }
    }

    /// The URL as it is connected to. The address of a name is for the resolver to check; an address that is the host itself
    /// never comes there.
    fn checked(&self, request: &Request) -> Result<(Url, Method), String> {
        let url = read_alike(&request.url)?;
        let method = Method::from_bytes(request.method.as_bytes()).map_err(|error| error.to_string())?;
        if let Some((host, address)) = url.host_str().and_then(|host| Some((host, literal(host)?))) {
            permitted(&self.reachable, host, vec![SocketAddr::new(address, 0)]).map_err(|error| error.to_string())?;
        }
        Ok((url, method))
    }

    async fn read(&self, mut response: Response) -> Sent {
        let status = response.status().as_u16();
        // Seconds; a date (RFC 9110, section 10.2.3) would need a clock that is right.
        let retry_after_s = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let mut sent = Sent {
            tried: Tried::Answered { status, retry_after_s },
            status: Some(status),
            headers: fields(response.headers()),
            body: Vec::new(),
            error: None,
        };
        loop {
            match response.chunk().await {
                Ok(None) => return sent,
                Ok(Some(chunk)) if sent.body.len() + chunk.len() > self.max_answer_bytes => {
                    sent.body = Vec::new();
                    sent.error = Some(format!(
                        "the body is longer than {} KiB, which requests.max_answer_kib of the gateway's configuration allows",
                        self.max_answer_bytes >> 10
                    ));
                    return sent;
                }
                Ok(Some(chunk)) => sent.body.extend_from_slice(&chunk),
                Err(error) => return failed(error),
            }
        }
    }
}

/// The URL as the client reads it. What was allowed is what our own reader found in it, so both must agree.
fn read_alike(text: &str) -> Result<Url, String> {
    let target = Target::parse(text).map_err(|error| error.to_string())?;
    let url = Url::parse(text).map_err(|error| error.to_string())?;
    let host = url.host_str().unwrap_or_default();
    // One address of IPv6 has several spellings.
    let same = host == target.host || literal(host).is_some_and(|address| literal(&target.host) == Some(address));
    if same && url.port_or_known_default() == Some(target.port) && (url.scheme() == "https") == target.https {
        Ok(url)
    } else {
        Err("its URL can be read in two ways".to_owned())
    }
}

/// The address that a host is, if it is one.
fn literal(host: &str) -> Option<IpAddr> {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host).parse().ok()
}

fn failed(error: reqwest::Error) -> Sent {
    // Its query may hold a secret, and this is shown and stored.
    let error = error.without_url();
    let mut cause = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        if let Some(refused) = error.downcast_ref::<Refused>() {
            return Sent::without_answer(Tried::Hopeless, refused.to_string());
        }
        cause = format!("{cause}: {error}");
        source = error.source();
    }
    Sent::without_answer(Tried::Unanswered, cause)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_our_reader_takes_the_client_reads_alike() {
        for url in [
            "http://a.example",
            "https://A.example:8443/x?y=%20z",
            "http://10.0.0.5:80/",
            "http://[::1]/",
            "http://[FD00:0:0::5]:81",
            "http://[::ffff:127.0.0.1]:80/",
            "http://[64:ff9b::10.0.0.1]/",
            "https://a_b.example/../..//c",
            "http://a/?b/c@d:1",
        ] {
            assert!(read_alike(url).is_ok(), "{url}");
        }
        // Whatever is put between host and path, there are no two readings that pass.
        let parts = [
            "a",
            "b.example",
            "127.0.0.1",
            "127.1",
            "0x7f.1",
            "[::1]",
            "@",
            ":",
            ":80",
            "\\",
            "/",
            "?",
            "#",
            ".",
            "%2e",
            " ",
        ];
        for first in parts {
            for second in parts {
                for third in parts {
                    let url = format!("http://{first}{second}{third}/");
                    if Target::parse(&url).is_ok() {
                        // A name that only looks strange, such as "a127.1", is a name for both or refused by one.
                        assert!(read_alike(&url).is_ok() || Url::parse(&url).is_err(), "{url}");
                    }
                }
            }
        }
    }

    #[test]
    fn of_several_addresses_only_those_that_may_be_reached_are_left() {
        let found = |addresses: &[&str]| -> Vec<SocketAddr> {
            addresses.iter().map(|address| SocketAddr::new(address.parse().unwrap(), 0)).collect()
        };
        let reachable = Reachable(vec!["10.0.0.0/8".parse().unwrap()]);
        let both = permitted(&reachable, "a", found(&["127.0.0.1", "8.8.8.8", "10.1.1.1", "::1"]));
        assert_eq!(both, Ok(found(&["8.8.8.8", "10.1.1.1"])));
        let refused = permitted(&reachable, "a", found(&["::ffff:192.168.0.1", "::1"])).unwrap_err();
        assert_eq!(refused.address, "::ffff:192.168.0.1".parse::<IpAddr>().unwrap());
        assert!(refused.to_string().starts_with("a is at ::ffff:192.168.0.1, which is no public address"), "{refused}");
    }
}
