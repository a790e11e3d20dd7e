//! What operators ask: `sync_core::api`.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{FromRequestParts, Path, Query, State};
use axum::http::request::Parts;
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use function_package::{MAX_PACKAGE_BYTES, Package, PublicKey, Signature};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sync_core::api;
use sync_core::targeting::Target;

use super::{App, bearer, read_body};
use crate::clock::now_us;
use crate::db::Reader;
use crate::fault::Fault;
use crate::limits::MAX_JSON_BYTES;
use crate::secret;
use crate::store::deployments::Change;
use crate::store::{dead, deployments, enroll, functions, gaps, gateways, records, twins, usage};

type Answer<T> = Result<Json<T>, Refused>;
type AppState = State<Arc<App>>;

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new().nest(
        api::PREFIX,
        Router::new()
            .route("/claims", get(list_claims).post(new_claim))
            .route("/gateways", get(list_gateways))
            .route("/gateways/{id}", get(show_gateway).patch(relabel))
            .route("/gateways/{id}/gaps", get(list_gaps))
            .route("/gateways/{id}/twins", get(list_twins))
            .route("/gateways/{id}/dead", post(command_letters))
            .route("/gateways/{id}/dead/{letter}", get(show_letter))
            .route("/dead", get(list_letters))
            .route("/publishers", get(list_publishers).post(new_publisher))
            .route("/functions", get(list_functions).post(push))
            .route("/deployments", get(list_deployments).post(deploy).delete(undeploy))
            .route("/records", get(query_records))
            .route("/streams", get(list_streams))
            .route("/usage", get(query_usage))
            .route("/metrics", get(query_metrics))
            .route("/stats", get(stats)),
    )
}

/// An answer, with what it is.
struct Json<T>(T);

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        let mut text = serde_json::to_vec(&self.0).expect("the types of the API become JSON");
        text.push(b'\n');
        ([(header::CONTENT_TYPE, "application/json")], text).into_response()
    }
}

/// A fault, as operators are told of it.
struct Refused(Fault);

impl From<Fault> for Refused {
    fn from(fault: Fault) -> Self {
        Self(fault)
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let (status, code, message) = self.0.answer();
        tracing::debug!(%status, code, message, "an operator's request was refused");
        (status, Json(api::Error { code: code.to_owned(), message })).into_response()
    }
}

pub(super) fn refuse(fault: Fault) -> Response {
    Refused(fault).into_response()
}

/// Proof that a request carries the operator's token.
struct Operator;

impl FromRequestParts<Arc<App>> for Operator {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Response> {
        let token = bearer(&parts.headers).map(|token| secret::hash(token.as_bytes()));
        match token {
            Some(token) if secret::same(&token, &app.operator_token) => Ok(Self),
            _ => {
                let message = "the operator's token is missing or wrong; it lies in the file operator-token of the \
                               control plane's data directory, and goes into the header Authorization: Bearer TOKEN";
                Err(refuse(Fault::refused(StatusCode::UNAUTHORIZED, "unknown_token", message)))
            }
        }
    }
}

async fn read_json<T: DeserializeOwned>(body: Body) -> Result<T, Fault> {
    let bytes = read_body(body, MAX_JSON_BYTES).await?;
    serde_json::from_slice(&bytes)
        .map_err(|error| Fault::bad("bad_json", format!("the body is not as expected: {error}")))
}

fn read_query<T: DeserializeOwned>(uri: &Uri) -> Result<T, Fault> {
    let query = Query::try_from_uri(uri).map_err(|error| Fault::bad("bad_query", error.body_text()))?;
    Ok(query.0)
}

fn read_target(text: &str) -> Result<Target, Fault> {
    text.parse().map_err(|error: sync_core::targeting::TargetError| Fault::bad("bad_target", error.to_string()))
}

async fn new_claim(State(app): AppState, _: Operator, body: Body) -> Answer<api::Claim> {
    let wanted: api::NewClaim = read_json(body).await?;
    let now = now_us();
    let claim = app.db.write(move |db| enroll::new_claim(db, &wanted, now)).await?;
    tracing::info!(id = claim.id, "a claim was made");
    Ok(Json(claim))
}

async fn list_claims(State(app): AppState, _: Operator) -> Answer<api::Claims> {
    let now = now_us();
    Ok(Json(app.db.read(Reader::Operators, move |db| enroll::claims(db, now)).await?))
}

async fn list_gateways(State(app): AppState, _: Operator) -> Answer<api::Gateways> {
    let now = now_us();
    Ok(Json(app.db.read(Reader::Operators, move |db| gateways::gateways(db, now)).await?))
}

async fn show_gateway(State(app): AppState, _: Operator, Path(id): Path<String>) -> Answer<api::GatewayDetail> {
    let now = now_us();
    Ok(Json(app.db.read(Reader::Operators, move |db| gateways::detail(db, &id, now)).await?))
}

async fn relabel(State(app): AppState, _: Operator, Path(id): Path<String>, body: Body) -> Answer<api::Gateway> {
    let change: api::LabelChange = read_json(body).await?;
    let now = now_us();
    let gateway = app.db.write_news(move |db| gateways::relabel(db, &id, &change, now)).await?;
    tracing::info!(gateway = gateway.id, labels = ?gateway.labels, "a gateway has other labels");
    Ok(Json(gateway))
}

async fn list_gaps(State(app): AppState, _: Operator, Path(id): Path<String>, uri: Uri) -> Answer<api::Gaps> {
    let query: api::GapQuery = read_query(&uri)?;
    Ok(Json(app.db.read(Reader::Operators, move |db| gaps::page(db, &id, &query)).await?))
}

async fn list_twins(State(app): AppState, _: Operator, Path(id): Path<String>, uri: Uri) -> Answer<api::Twins> {
    let query: api::TwinQuery = read_query(&uri)?;
    Ok(Json(app.db.read(Reader::Operators, move |db| twins::page(db, &id, &query)).await?))
}

async fn list_letters(State(app): AppState, _: Operator, uri: Uri) -> Answer<api::DeadLetters> {
    let query: api::DeadQuery = read_query(&uri)?;
    Ok(Json(app.db.read(Reader::Operators, move |db| dead::page(db, &query)).await?))
}

async fn show_letter(
    State(app): AppState,
    _: Operator,
    Path((id, letter)): Path<(String, String)>,
) -> Answer<api::DeadLetterDetail> {
    let number =
        letter.parse().map_err(|_| Fault::bad("bad_letter", format!("{letter:?} is no number of a letter")))?;
    Ok(Json(app.db.read(Reader::Operators, move |db| dead::detail(db, &id, number)).await?))
}

async fn command_letters(
    State(app): AppState,
    _: Operator,
    Path(id): Path<String>,
    body: Body,
) -> Answer<api::DeadCommanded> {
    let wanted: api::DeadCommand = read_json(body).await?;
    let (gateway, action) = (id.clone(), wanted.action);
    let said = app.db.write_news(move |db| dead::command(db, &id, &wanted)).await?;
    tracing::info!(gateway, ?action, letters = said.letters, "dead letters are to be dealt with");
    Ok(Json(said))
}

async fn new_publisher(State(app): AppState, _: Operator, body: Body) -> Answer<api::Publisher> {
    let wanted: api::NewPublisher = read_json(body).await?;
    let parsed = wanted.public_key.trim().parse();
    let key: PublicKey = parsed.map_err(|error| Fault::bad("bad_public_key", format!("what was sent {error}")))?;
    let publisher = app.db.write(move |db| functions::add_publisher(db, key)).await?;
    tracing::info!(key = publisher.key_id, "a publisher was registered");
    Ok(Json(publisher))
}

async fn list_publishers(State(app): AppState, _: Operator) -> Answer<api::Publishers> {
    Ok(Json(app.db.read(Reader::Operators, functions::publishers).await?))
}

async fn push(State(app): AppState, _: Operator, uri: Uri, body: Body) -> Answer<api::Function> {
    let query: api::PushQuery = read_query(&uri)?;
    let parsed = query.signature.parse();
    let signature: Signature =
        parsed.map_err(|error| Fault::bad("bad_signature", format!("the signature in the query {error}")))?;
    let _room = app.room().await?;
    let bytes = read_body(body, MAX_PACKAGE_BYTES).await?;
    let package = Package::open(&*bytes).map_err(|error| Fault::bad("bad_package", error.to_string()))?;
    let now = now_us();
    let function = app.db.write(move |db| functions::push(db, &package, &signature, now)).await?;
    let api::Function { name, version, digest, key_id, .. } = &function;
    tracing::info!(name, version, digest, key_id, "a function was pushed");
    Ok(Json(function))
}

async fn list_functions(State(app): AppState, _: Operator) -> Answer<api::Functions> {
    Ok(Json(app.db.read(Reader::Operators, functions::functions).await?))
}

async fn deploy(State(app): AppState, _: Operator, body: Body) -> Answer<api::Deployment> {
    let api::NewDeployment { function, target, config } = read_json(body).await?;
    let target = read_target(&target)?;
    // Functions are never deleted, so what is found here is there when the deployment is written.
    let change = app.db.read(Reader::Operators, move |db| {
        let digest = functions::resolve(db, &function)?;
        check_config(functions::package(db, digest)?, &config)?;
        Ok(Change::Set { digest, config })
    });
    let (change, now) = (change.await?, now_us());
    Ok(Json(app.db.write_news(move |db| deployments::deploy(db, &change, &target, now)).await?))
}

fn check_config(package: Option<Vec<u8>>, config: &BTreeMap<String, String>) -> Result<(), Fault> {
    let package = package.ok_or_else(|| Fault::Damaged("a function is there without its package".to_owned()))?;
    let package = Package::open(package).map_err(|error| Fault::Damaged(format!("a stored package: {error}")))?;
    package.manifest().config_with(config).map_err(|error| Fault::bad("bad_config", error.to_string()))?;
    Ok(())
}

async fn undeploy(State(app): AppState, _: Operator, uri: Uri) -> Answer<api::Deployment> {
    let api::UndeployQuery { function: name, target } = read_query(&uri)?;
    let (change, target, now) = (Change::Remove { name }, read_target(&target)?, now_us());
    Ok(Json(app.db.write_news(move |db| deployments::deploy(db, &change, &target, now)).await?))
}

async fn list_deployments(State(app): AppState, _: Operator) -> Answer<api::Deployments> {
    let list = app.db.read(Reader::Operators, deployments::newest).await?;
    Ok(Json(api::Deployments { deployments: list.iter().map(deployments::Deployment::to_api).collect() }))
}

async fn query_records(State(app): AppState, _: Operator, uri: Uri) -> Answer<api::Page> {
    let query: api::RecordQuery = read_query(&uri)?;
    Ok(Json(app.db.read(Reader::Operators, move |db| records::page(db, &query)).await?))
}

async fn list_streams(State(app): AppState, _: Operator) -> Answer<api::Streams> {
    Ok(Json(app.db.read(Reader::Operators, records::streams).await?))
}

async fn query_usage(State(app): AppState, _: Operator, uri: Uri) -> Answer<api::UsagePage> {
    let query: api::UsageQuery = read_query(&uri)?;
    Ok(Json(app.db.read(Reader::Operators, move |db| usage::page(db, &query)).await?))
}

async fn query_metrics(State(app): AppState, _: Operator, uri: Uri) -> Answer<api::MetricPage> {
    let query: api::MetricQuery = read_query(&uri)?;
    Ok(Json(app.db.read(Reader::Operators, move |db| usage::metrics(db, &query)).await?))
}

async fn stats(State(app): AppState, _: Operator) -> Answer<api::Stats> {
    let now = now_us();
    Ok(Json(app.db.read(Reader::Operators, move |db| gateways::stats(db, now)).await?))
}
