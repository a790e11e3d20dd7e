//! The control plane's public interface, from outside.

use std::path::Path;
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use reqwest::{Method, RequestBuilder, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sync_core::api;

use crate::failure::Failure;
use crate::files;

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(10);

/// How long a request may take: a package of 8 MiB through a line of 1 Mbit/s.
const REQUEST: Duration = Duration::from_secs(90);

/// An answer: what it says, and the text in which it was given.
pub(crate) struct Answer<T> {
    pub(crate) value: T,
    pub(crate) text: String,
}

pub(crate) struct Client {
    http: reqwest::Client,
    server: Url,
}

/// A path of the interface, with names in it that may hold anything.
pub(crate) fn path(parts: &[&str]) -> String {
    let mut url = Url::parse("http://x/").expect("it is one");
    url.path_segments_mut().expect("it has a path").clear().extend(parts);
    url.path().to_owned()
}

impl Client {
    /// A client with the operator's token; nothing is sent yet.
    pub(crate) fn new(server: &str, token_file: Option<&Path>) -> Result<Self, Failure> {
        // The one that is installed first counts; it can only be this one.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let wrong = |why: String| Failure::Server { url: server.to_owned(), why };
        let url = Url::parse(server).map_err(|error| wrong(error.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(wrong(format!("{} is another protocol", url.scheme())));
        }
        let (token, place) = match token_file {
            Some(path) => (files::read_text("cannot read the operator's token in", path)?, path.display().to_string()),
            None => (std::env::var("EDGECTL_TOKEN").map_err(|_| Failure::NoToken)?, "EDGECTL_TOKEN".to_owned()),
        };
        let mut value =
            HeaderValue::try_from(format!("Bearer {}", token.trim())).map_err(|_| Failure::BadToken(place))?;
        value.set_sensitive(true);
        let http = reqwest::Client::builder()
            .default_headers(HeaderMap::from_iter([(AUTHORIZATION, value)]))
            .connect_timeout(CONNECT)
            .timeout(REQUEST)
            // An interface does not move; a token must not follow to where somebody points.
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| wrong(reasons(&error)))?;
        Ok(Self { http, server: url })
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let base = self.server.as_str().trim_end_matches('/');
        self.http.request(method, format!("{base}{}{path}", api::PREFIX))
    }

    /// `doing` says what for, as in "listing the gateways".
    pub(crate) async fn get<T: DeserializeOwned>(&self, doing: &str, path: &str) -> Result<Answer<T>, Failure> {
        self.run(doing, self.request(Method::GET, path)).await
    }

    pub(crate) async fn get_with<T: DeserializeOwned>(
        &self,
        doing: &str,
        path: &str,
        query: &impl Serialize,
    ) -> Result<Answer<T>, Failure> {
        self.run(doing, self.request(Method::GET, path).query(query)).await
    }

    pub(crate) async fn delete<T: DeserializeOwned>(
        &self,
        doing: &str,
        path: &str,
        query: &impl Serialize,
    ) -> Result<Answer<T>, Failure> {
        self.run(doing, self.request(Method::DELETE, path).query(query)).await
    }

    pub(crate) async fn send<T: DeserializeOwned>(
        &self,
        doing: &str,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> Result<Answer<T>, Failure> {
        self.run(doing, self.request(method, path).json(body)).await
    }

    pub(crate) async fn upload<T: DeserializeOwned>(
        &self,
        doing: &str,
        path: &str,
        query: &impl Serialize,
        body: Vec<u8>,
    ) -> Result<Answer<T>, Failure> {
        self.run(doing, self.request(Method::POST, path).query(query).body(body)).await
    }

    async fn run<T: DeserializeOwned>(&self, doing: &str, request: RequestBuilder) -> Result<Answer<T>, Failure> {
        let (doing, server) = (doing.to_owned(), self.server.to_string());
        let unreachable = |error: &reqwest::Error| Failure::Unreachable {
            doing: doing.clone(),
            server: server.clone(),
            why: reasons(error),
        };
        let answer = request.send().await.map_err(|error| unreachable(&error))?;
        let status = answer.status();
        let text = answer.text().await.map_err(|error| unreachable(&error))?;
        let other = |why: serde_json::Error| Failure::NotTheApi {
            doing: doing.clone(),
            server: server.clone(),
            status: status.as_u16(),
            why: why.to_string(),
        };
        if status.is_success() {
            let value = serde_json::from_str(&text).map_err(other)?;
            return Ok(Answer { value, text });
        }
        let refusal = serde_json::from_str(&text).map_err(other)?;
        Err(Failure::Refused { doing: doing.clone(), refusal })
    }
}

/// An error with what lies under it; reqwest's own text alone says little.
fn reasons(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut cause: Option<&dyn std::error::Error> = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_in_a_path_stays_a_name() {
        assert_eq!(path(&["gateways", "gw-1"]), "/gateways/gw-1");
        assert_eq!(path(&["gateways", "a/b?c d"]), "/gateways/a%2Fb%3Fc%20d");
    }
}
