//! Whom a function may send requests to: the URL of a request, and the hosts that a manifest allows.
//!
//! Both are read strictly, so that no two readers can find different hosts in one text: what a lenient one would make
//! right is refused here.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// Longest URL of a request in bytes: what servers take at least (RFC 9110, section 4.1, asks for 8,000; many stop at half).
pub const MAX_URL_BYTES: usize = 4_096;

/// Longest name of a host in bytes (RFC 1035, section 2.3.4).
const MAX_HOST_BYTES: usize = 253;

/// Where a request goes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Whether over TLS.
    pub https: bool,
    /// A name in lower case, or an address, one of IPv6 in brackets.
    pub host: String,
    /// The port, said or the scheme's.
    pub port: u16,
}

/// Why a text is no URL that a request can go to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// Longer than [`MAX_URL_BYTES`].
    #[error("it is {0} bytes long; at most {MAX_URL_BYTES} are allowed")]
    TooLong(usize),
    /// No scheme, or another one.
    #[error("it begins with neither \"http://\" nor \"https://\"")]
    Scheme,
    /// A character that has no place in it as it is.
    #[error("it holds {0:?}; write it percent-encoded (RFC 3986, section 2.1)")]
    Character(char),
    /// User name or password.
    #[error("it has a user name or password before the host; use the header field Authorization")]
    UserInfo,
    /// A fragment.
    #[error("it has a fragment, which no server is sent; take \"#\" and the rest out")]
    Fragment,
    /// No host.
    #[error(transparent)]
    Host(#[from] HostError),
}

/// Why a text is no host.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// Not a name.
    #[error(
        "the host {0:?} is none: a name has labels of 1 to 63 letters, digits, hyphens and underscores with dots between \
         them, at most {MAX_HOST_BYTES} bytes, and its last label is no number; an address is written as in \"10.0.0.5\" or \
         \"[fd00::5]\"; other scripts as punycode (\"xn--…\")"
    )]
    Host(String),
    /// Not a port.
    #[error("the port {0:?} is none; allowed is a number from 1 to 65535")]
    Port(String),
}

impl Target {
    /// Reads the URL of a request: absolute, http or https, without user name, password and fragment.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn parse(url: &str) -> Result<Self, UrlError> {
        if url.len() > MAX_URL_BYTES {
            return Err(UrlError::TooLong(url.len()));
        }
        let (https, rest) = match (url.strip_prefix("https://"), url.strip_prefix("http://")) {
            (Some(rest), _) => (true, rest),
            (None, Some(rest)) => (false, rest),
            (None, None) => return Err(UrlError::Scheme),
        };
        if url.contains('#') {
            return Err(UrlError::Fragment);
        }
        // What RFC 3986 knows (appendix A), but for the fragment; brackets stand around addresses only.
        let known = |one: char| one.is_ascii_alphanumeric() || "-._~:/?@!$&'()*+,;=%[]".contains(one);
        if let Some(strange) = url.chars().find(|one| !known(*one)) {
            return Err(UrlError::Character(strange));
        }
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        if authority.contains('@') {
            return Err(UrlError::UserInfo);
        }
        if let Some(bracket) = path.chars().find(|one| "[]".contains(*one)) {
            return Err(UrlError::Character(bracket));
        }
        let (host, port) = host_and_port(authority)?;
        Ok(Self { https, host, port: port.unwrap_or(default_port(https)) })
    }
}

fn default_port(https: bool) -> u16 {
    if https { 443 } else { 80 }
}

/// A host in lower case, and the port behind it, if there is one.
fn host_and_port(text: &str) -> Result<(String, Option<u16>), HostError> {
    let wrong = || HostError::Host(text.chars().take(MAX_HOST_BYTES).collect());
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']').ok_or_else(wrong)?;
            let address: Ipv6Addr = address.parse().map_err(|_| wrong())?;
            let port = if port.is_empty() { None } else { Some(port.strip_prefix(':').ok_or_else(wrong)?) };
            (format!("[{address}]"), port)
        }
        None => {
            let (host, port) = text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port)));
            (name(host).ok_or_else(wrong)?, port)
        }
    };
    let port = port.map(|port| match port.parse() {
        // Not "+80", and not "080": one port is written in one way.
        Ok(number @ 1..) if number.to_string() == port => Ok(number),
        _ => Err(HostError::Port(port.to_owned())),
    });
    Ok((host, port.transpose()?))
}

/// A name, or an address of IPv4, in lower case. Other ways to write addresses (`127.1`, `0x7f.1`, `017700000001`) are none.
fn name(text: &str) -> Option<String> {
    let good = |label: &str| {
        let known = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        (1..=63).contains(&label.len()) && label.bytes().all(known)
    };
    if text.len() > MAX_HOST_BYTES || !text.split('.').all(good) {
        return None;
    }
    let last = text.rsplit('.').next()?;
    let numeric = last.bytes().all(|byte| byte.is_ascii_digit())
        || last.get(..2).is_some_and(|prefix| prefix.eq_ignore_ascii_case("0x"));
    if numeric && text.parse::<Ipv4Addr>().is_err() {
        return None;
    }
    Some(text.to_ascii_lowercase())
}

/// A host that requests may go to, as a manifest allows it: a name or an address, or `*.` and a domain for all below it; with
/// a port, if that is not the one of the scheme.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllowedHost {
    host: String,
    below: bool,
    port: Option<u16>,
}

impl AllowedHost {
    /// Whether a request may go there.
    pub fn allows(&self, target: &Target) -> bool {
        let host = match self.below {
            false => target.host == self.host,
            true => target.host.strip_suffix(&self.host).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.')),
        };
        host && target.port == self.port.unwrap_or(default_port(target.https))
    }
}

impl FromStr for AllowedHost {
    type Err = HostError;

    fn from_str(text: &str) -> Result<Self, HostError> {
        let (below, rest) = text.strip_prefix("*.").map_or((false, text), |rest| (true, rest));
        let (host, port) = host_and_port(rest)?;
        if below && (host.starts_with('[') || host.parse::<Ipv4Addr>().is_ok()) {
            return Err(HostError::Host(text.to_owned()));
        }
        Ok(Self { host, below, port })
    }
}

impl fmt::Display for AllowedHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let below = if self.below { "*." } else { "" };
        write!(f, "{below}{}", self.host)?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(url: &str) -> Target {
        Target::parse(url).unwrap_or_else(|error| panic!("{url}: {error}"))
    }

    #[test]
    fn a_url_says_where_it_goes() {
        for (url, https, host, port) in [
            ("http://api.example.org", false, "api.example.org", 80),
            ("https://API.Example.org/a?b=c@d:e", true, "api.example.org", 443),
            ("https://api.example.org:8443?q", true, "api.example.org", 8443),
            ("http://10.0.0.5:8080/", false, "10.0.0.5", 8080),
            ("http://[FD00:0::5]:81/x", false, "[fd00::5]", 81),
            ("http://0xab.example/", false, "0xab.example", 80),
        ] {
            assert_eq!(target(url), Target { https, host: host.into(), port }, "{url}");
        }
    }

    #[test]
    fn what_two_readers_could_read_differently_is_refused() {
        for url in [
            "",
            "api.example.org",
            "//api.example.org",
            "HTTP://a",
            "ftp://a",
            "file:///etc/passwd",
            "http:/a",
            "http://",
            "http:///a",
            "http://?a",
            "http://:80",
            "http://a:",
            "http://a:0",
            "http://a:65536",
            "http://a:+80",
            "http://a:080",
            "http://a:80:80",
            "http://u@a",
            "http://u:p@a",
            "http://a@b:80/",
            "http://good\\@evil/",
            "http://good\\.evil/",
            "http://a b/",
            "http://a/ b",
            "http://a\t/",
            "http://a/\n",
            "http://a#b",
            "http://a/#",
            "http://a/é",
            "http://bücher.example/",
            "http://a%2eb/",
            "http://a..b/",
            "http://.a/",
            "http://a./",
            "http://127.1/",
            "http://0x7f.1/",
            "http://0x7f000001/",
            "http://2130706433/",
            "http://017700000001/",
            "http://127.0.0.01/",
            "http://1.2.3.4.5/",
            "http://256.1.1.1/",
            "http://a.0x1/",
            "http://[::1",
            "http://::1/",
            "http://[::1]80/",
            "http://[::1%25eth0]/",
            "http://[1.2.3.4]/",
            "http://a/[b]",
            "http://a,b/",
            "http://*.a/",
        ] {
            assert!(Target::parse(url).is_err(), "{url:?}");
        }
        assert_eq!(Target::parse(&format!("http://a/{}", "x".repeat(MAX_URL_BYTES))), Err(UrlError::TooLong(4_105)));
        assert!(Target::parse(&format!("http://{}/", "a.".repeat(127) + "a")).is_err());
    }

    #[test]
    fn a_host_is_allowed_by_name_domain_and_port() {
        let allows = |allowed: &str, url: &str| allowed.parse::<AllowedHost>().unwrap().allows(&target(url));
        assert!(allows("API.example.org", "https://api.example.org/x"));
        assert!(allows("api.example.org", "http://api.EXAMPLE.org/x"));
        assert!(!allows("api.example.org", "https://api.example.org:8443/"));
        assert!(!allows("api.example.org", "http://api.example.org:443/"));
        assert!(!allows("api.example.org", "https://api.example.org.evil.com/"));
        assert!(!allows("api.example.org", "https://x.api.example.org/"));
        assert!(allows("api.example.org:443", "http://api.example.org:443/"));
        assert!(allows("10.0.0.5:8080", "http://10.0.0.5:8080/"));
        assert!(allows("[fd00:0::5]:80", "http://[fd00::5]/"));
        assert!(allows("*.example.org", "https://a.example.org/"));
        assert!(allows("*.example.org", "https://a.b.example.org/"));
        assert!(!allows("*.example.org", "https://example.org/"));
        assert!(!allows("*.example.org", "https://evilexample.org/"));
        assert!(!allows("*.example.org", "https://a.example.org:1/"));
        assert!(allows("*.example.org:1", "https://a.example.org:1/"));
    }

    #[test]
    fn other_patterns_are_none() {
        for text in
            ["", "*", "*.", "*.*.a", "a.*", "*a", "http://a", "a/b", "a:x", "*.10.0.0.5", "*.[::1]", "127.1", "a b"]
        {
            assert!(text.parse::<AllowedHost>().is_err(), "{text:?}");
        }
        for text in ["a", "*.example.org:81", "10.0.0.5", "[fd00::5]:81"] {
            assert_eq!(text.parse::<AllowedHost>().unwrap().to_string(), text);
        }
    }
}
