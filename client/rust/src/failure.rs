use std::collections::HashMap;
use std::time::Duration;

use prost::Message;
use tonic::{Code, Status};

use crate::rpc::{self, BadRequest, ErrorInfo, QuotaFailure, RetryInfo};
use crate::v1::{AttemptsExhausted, ErrorReason, NoEligibleEndpoint};

/// Domain of the ErrorInfo whose reasons are of Pointsman; a proxy's own ErrorInfo has another.
const ERROR_DOMAIN: &str = "pointsman";

/// How a call failed, as far as the server said.
#[derive(Clone, Debug)]
pub struct Failure {
    /// How gRPC calls it.
    pub code: Code,
    /// The server's words.
    pub message: String,
    /// Unspecified where the failure did not come from Pointsman.
    pub reason: ErrorReason,
    /// Facts that belong to the reason; [`ErrorReason`] documents them.
    pub metadata: HashMap<String, String>,
    /// Every fault of a wrong request.
    pub field_violations: Vec<Violation>,
    /// The limits that are reached.
    pub quota_violations: Vec<Violation>,
    /// The rejections, and the nearest changes of bounds that would be enough.
    pub no_eligible_endpoint: Option<NoEligibleEndpoint>,
    /// What each attempt met.
    pub attempts_exhausted: Option<AttemptsExhausted>,
    /// How long to wait before trying again.
    pub retry_after: Option<Duration>,
}

/// One fault of a request, or one exhausted quota.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Path of the field, such as `routing.constraints.ttft.max`, or whose quota it is.
    pub subject: String,
    /// What is wrong.
    pub description: String,
}

impl Failure {
    /// Reads what a call was answered with. Details that can't be decoded are left out.
    #[must_use]
    pub fn of(status: &Status) -> Self {
        let sent = rpc::Status::decode(status.details()).unwrap_or_default();
        let info = detail::<ErrorInfo>(&sent, "google.rpc.ErrorInfo")
            .filter(|info| info.domain == ERROR_DOMAIN)
            .unwrap_or_default();
        let fields = detail::<BadRequest>(&sent, "google.rpc.BadRequest").unwrap_or_default();
        let quotas = detail::<QuotaFailure>(&sent, "google.rpc.QuotaFailure").unwrap_or_default();
        Self {
            code: status.code(),
            message: status.message().to_owned(),
            reason: ErrorReason::from_str_name(&info.reason).unwrap_or_default(),
            metadata: info.metadata,
            field_violations: fields
                .field_violations
                .into_iter()
                .map(|each| Violation { subject: each.field, description: each.description })
                .collect(),
            quota_violations: quotas
                .violations
                .into_iter()
                .map(|each| Violation { subject: each.subject, description: each.description })
                .collect(),
            no_eligible_endpoint: detail(&sent, "pointsman.v1.NoEligibleEndpoint"),
            attempts_exhausted: detail(&sent, "pointsman.v1.AttemptsExhausted"),
            retry_after: detail::<RetryInfo>(&sent, "google.rpc.RetryInfo")
                .and_then(|retry| retry.retry_delay)
                .and_then(|delay| Duration::try_from(delay).ok()),
        }
    }
}

fn detail<M: Message + Default>(status: &rpc::Status, name: &str) -> Option<M> {
    let packed = status.details.iter().find(|each| each.type_url.rsplit('/').next() == Some(name))?;
    M::decode(packed.value.as_slice()).ok()
}
