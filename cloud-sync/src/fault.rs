//! What can go wrong with a request.

use axum::http::StatusCode;

/// Why a request got no answer that it hoped for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    /// The request is at fault; changing it helps.
    #[error("{message}")]
    Refused { status: StatusCode, code: &'static str, message: String },
    /// The database said no.
    #[error("the database failed: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// A transaction that this request was part of was not stored.
    #[error("the transaction was not stored: {0}")]
    NotStored(String),
    /// Something in the database is not as we wrote it.
    #[error("the database is damaged: {0}")]
    Damaged(String),
    /// No random numbers.
    #[error("the operating system gives no random numbers: {0}")]
    Random(#[from] getrandom::Error),
    /// Too much at once.
    #[error("too many requests at once, or a body that came too slowly")]
    Busy,
    /// The threads of the database have ended.
    #[error("the control plane is stopping")]
    Stopping,
}

impl Fault {
    /// A refusal; the message says what was refused, why, and what to do.
    pub(crate) fn refused(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self::Refused { status, code, message: message.into() }
    }

    pub(crate) fn bad(code: &'static str, message: impl Into<String>) -> Self {
        Self::refused(StatusCode::BAD_REQUEST, code, message)
    }

    pub(crate) fn not_found(code: &'static str, message: impl Into<String>) -> Self {
        Self::refused(StatusCode::NOT_FOUND, code, message)
    }

    /// Status, code and message as they are sent. What is wrong inside goes to the log, not to whoever asked.
    pub(crate) fn answer(self) -> (StatusCode, &'static str, String) {
        let unavailable = StatusCode::SERVICE_UNAVAILABLE;
        match self {
            Self::Refused { status, code, message } => (status, code, message),
            Self::Busy => (unavailable, "busy", format!("{self}; send again later")),
            Self::Stopping => (unavailable, "stopping", format!("{self}; send again later")),
            Self::Sqlite(_) | Self::NotStored(_) | Self::Damaged(_) | Self::Random(_) => {
                tracing::error!(error = %self, "a request failed inside");
                let message = "the control plane could not handle the request; its log says why. Send again later";
                (unavailable, "failed_inside", message.to_owned())
            }
        }
    }
}
