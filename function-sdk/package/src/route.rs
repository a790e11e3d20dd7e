//! HTTP routes: a method and a path with places.

use std::fmt;
use std::str::FromStr;

/// Longest path of a route in bytes.
const MAX_PATH_BYTES: usize = 512;

/// The methods that a route may have (RFC 9110, section 9; RFC 5789).
const METHODS: [&str; 5] = ["GET", "POST", "PUT", "PATCH", "DELETE"];

/// A method and a path, such as `POST /devices/{id}/readings`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Route {
    method: String,
    segments: Vec<Segment>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Segment {
    Exact(String),
    // Any one segment that is not empty, known under this name.
    Named(String),
}

/// Why a text is no route.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// No method that is known in front.
    #[error("it begins with none of GET, POST, PUT, PATCH and DELETE and a space")]
    Method,
    /// No path behind it.
    #[error("its path does not begin with \"/\" or is longer than {MAX_PATH_BYTES} bytes")]
    Path,
    /// A character that has no place in a path as it is.
    #[error("its segment {0:?} has other characters than letters, digits, and \"-._~\"")]
    Segment(String),
    /// Where the gateway itself answers.
    #[error("its path begins with \"/blobs\", where the gateway itself takes and gives blobs")]
    Blobs,
    /// The same name twice.
    #[error("it has the name {0:?} twice")]
    Twice(String),
}

impl FromStr for Route {
    type Err = RouteError;

    fn from_str(text: &str) -> Result<Self, RouteError> {
        let (method, path) = text.split_once(' ').ok_or(RouteError::Method)?;
        if !METHODS.contains(&method) {
            return Err(RouteError::Method);
        }
        let path = path.strip_prefix('/').filter(|path| path.len() < MAX_PATH_BYTES).ok_or(RouteError::Path)?;
        let mut segments: Vec<Segment> = Vec::new();
        for text in path.split('/') {
            let good =
                |name: &str| name.chars().all(|letter| letter.is_ascii_alphanumeric() || "-._~".contains(letter));
            let segment = match text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
                Some(name) if !name.is_empty() && good(name) => Segment::Named(name.to_owned()),
                None if good(text) => Segment::Exact(text.to_owned()),
                _ => return Err(RouteError::Segment(text.to_owned())),
            };
            if matches!(segment, Segment::Named(_)) && segments.contains(&segment) {
                return Err(RouteError::Twice(text.to_owned()));
            }
            segments.push(segment);
        }
        if segments[0] == Segment::Exact("blobs".to_owned()) {
            return Err(RouteError::Blobs);
        }
        Ok(Self { method: method.to_owned(), segments })
    }
}

impl Route {
    /// The method.
    pub fn method(&self) -> &str {
        &self.method
    }

    /// What stands in the places of a path (percent-decoded, without query) that fits, with their names; `None` if it
    /// does not fit.
    pub fn places(&self, path: &str) -> Option<Vec<(String, String)>> {
        let mut parts = path.strip_prefix('/')?.split('/');
        let mut places = Vec::new();
        for segment in &self.segments {
            let part = parts.next()?;
            match segment {
                Segment::Exact(text) if text == part => {}
                Segment::Named(name) if !part.is_empty() => places.push((name.clone(), part.to_owned())),
                _ => return None,
            }
        }
        parts.next().is_none().then_some(places)
    }

    /// Whether there are requests that fit both.
    pub fn overlaps(&self, other: &Self) -> bool {
        let meet = |(one, other): (&Segment, &Segment)| match (one, other) {
            (Segment::Exact(one), Segment::Exact(other)) => one == other,
            (Segment::Exact(text), Segment::Named(_)) | (Segment::Named(_), Segment::Exact(text)) => !text.is_empty(),
            (Segment::Named(_), Segment::Named(_)) => true,
        };
        self.method == other.method
            && self.segments.len() == other.segments.len()
            && self.segments.iter().zip(&other.segments).all(meet)
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.method)?;
        for segment in &self.segments {
            match segment {
                Segment::Exact(text) => write!(f, "/{text}")?,
                Segment::Named(name) => write!(f, "/{{{name}}}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_reads_as_it_is_written_and_finds_its_places() {
        for text in ["GET /", "POST /devices/{id}/readings", "DELETE /a/b.c~d_e-f/"] {
            assert_eq!(text.parse::<Route>().unwrap().to_string(), text);
        }
        let route: Route = "POST /devices/{id}/{what}".parse().unwrap();
        let places = |path| route.places(path);
        let found = places("/devices/pump 7/state").unwrap();
        assert_eq!(found, [("id".to_owned(), "pump 7".to_owned()), ("what".to_owned(), "state".to_owned())]);
        for path in ["/devices/7", "/devices/7/a/b", "/devices//a", "/device/7/a", "devices/7/a", ""] {
            assert_eq!(places(path), None, "{path}");
        }
    }

    #[test]
    fn what_is_no_route_is_named() {
        let error = |text: &str| text.parse::<Route>().unwrap_err();
        assert_eq!(error("POST"), RouteError::Method);
        assert_eq!(error("post /a"), RouteError::Method);
        assert_eq!(error("GET a"), RouteError::Path);
        assert_eq!(error("GET /a b"), RouteError::Segment("a b".into()));
        assert_eq!(error("GET /{}"), RouteError::Segment("{}".into()));
        assert_eq!(error("GET /blobs/{bucket}/{name}"), RouteError::Blobs);
        assert_eq!(error("GET /{a}/{a}"), RouteError::Twice("{a}".into()));
        assert_eq!(error(&format!("GET /{}", "a".repeat(512))), RouteError::Path);
    }

    #[test]
    fn routes_overlap_if_a_request_fits_both() {
        let overlap = |one: &str, other: &str| {
            let (one, other): (Route, Route) = (one.parse().unwrap(), other.parse().unwrap());
            assert_eq!(one.overlaps(&other), other.overlaps(&one));
            one.overlaps(&other)
        };
        assert!(overlap("GET /a/{x}", "GET /{y}/b"));
        assert!(overlap("GET /a", "GET /a"));
        assert!(!overlap("GET /a/{x}", "POST /a/{x}"));
        assert!(!overlap("GET /a/{x}", "GET /a"));
        assert!(!overlap("GET /a/", "GET /a/{x}"));
    }
}
