//! The runner of the conformance suite: takes calls as lines of JSON, and answers each with what the client saw. See
//! conformance/runner.py.

use std::collections::HashMap;
use std::io::{BufRead, Write, stdin, stdout};
use std::str::FromStr;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use pointsman::v1::{
    CompleteRequest, ErrorReason, ListEndpointsRequest, ReportOutcomeRequest, ReportOutcomesRequest, RouteRequest,
    WatchEndpointsRequest,
};
use pointsman::{Client, Connection, Failure, retried};
use prost::Message;
use serde_json::{Value, json};
use tokio::task::spawn_blocking;
use tonic::codegen::tokio_stream;
use tonic::metadata::{Ascii, MetadataKey};
use tonic::{Code, Request, Status, Streaming};

type Error = Box<dyn std::error::Error>;

/// How a call ended that did not fail.
enum End {
    Complete,
    Left,
}

/// One line of the harness.
struct Job(Value);

impl Job {
    fn text(&self, key: &str) -> Option<&str> {
        self.0[key].as_str()
    }

    fn requests<M: Message + Default>(&self) -> Result<Vec<M>, Status> {
        let encoded = self.0["requests"].as_array().into_iter().flatten();
        encoded
            .map(|each| {
                let bytes = BASE64.decode(each.as_str().unwrap_or_default());
                M::decode(bytes.unwrap_or_default().as_slice()).map_err(|error| Status::internal(error.to_string()))
            })
            .collect()
    }

    /// The one request of a call, with headers and deadline.
    fn request<M: Message + Default>(&self) -> Result<Request<M>, Status> {
        Ok(self.prepared(self.requests()?.remove(0)))
    }

    fn prepared<M>(&self, message: M) -> Request<M> {
        let mut request = Request::new(message);
        for (key, value) in self.0["metadata"].as_object().into_iter().flatten() {
            let key = MetadataKey::<Ascii>::from_str(key).expect("a scenario's header has a good name");
            let value = value.as_str().unwrap_or_default().parse().expect("and a good value");
            request.metadata_mut().insert(key, value);
        }
        if let Some(timeout_s) = self.0["timeout_s"].as_f64() {
            request.set_timeout(Duration::from_secs_f64(timeout_s));
        }
        request
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let mut clients = HashMap::new();
    // Read beside the runtime, which has to go on with what a call has left behind, such as cancelling it.
    while let Some(line) = spawn_blocking(|| stdin().lock().lines().next()).await? {
        let job = Job(serde_json::from_str(&line?)?);
        let key = format!("{} {} {}", job.0["target"], job.0["authority_file"], job.0["api_key"]);
        if !clients.contains_key(&key) {
            clients.insert(key.clone(), connected(&job)?);
        }
        let result = perform(&mut clients[&key].clone(), &job).await;
        writeln!(stdout(), "{result}")?;
    }
    Ok(())
}

fn connected(job: &Job) -> Result<Client, Error> {
    let target = job.text("target").unwrap_or_default();
    let mut connection = match job.text("authority_file") {
        Some(file) => Connection::to(format!("https://{target}"))?.roots(std::fs::read(file)?),
        None => Connection::to(format!("http://{target}"))?,
    };
    if let Some(key) = job.text("api_key") {
        connection = connection.api_key(key)?;
    }
    Ok(connection.client()?)
}

/// Makes the call, and leaves it after cancel_after responses.
async fn perform(client: &mut Client, job: &Job) -> Value {
    let mut responses = Vec::new();
    let mut result = match call(client, job, &mut responses).await {
        Ok(End::Complete) => json!({"status": "OK"}),
        Ok(End::Left) => json!({"status": "CANCELLED"}),
        Err(status) => failed(&Failure::of(&status)),
    };
    result["responses"] = responses.into();
    result
}

async fn call(client: &mut Client, job: &Job, responses: &mut Vec<String>) -> Result<End, Status> {
    match job.text("method").unwrap_or_default() {
        "Route" => {
            let request = job.requests::<RouteRequest>()?.remove(0);
            let response = retried(async || client.clone().route(job.prepared(request.clone())).await).await?;
            responses.push(encoded(response.get_ref()));
        }
        "ReportOutcome" => {
            let request = job.request::<ReportOutcomeRequest>()?;
            responses.push(encoded(client.report_outcome(request).await?.get_ref()));
        }
        "ReportOutcomes" => {
            let requests = tokio_stream::iter(job.requests::<ReportOutcomesRequest>()?);
            responses.push(encoded(client.report_outcomes(job.prepared(requests)).await?.get_ref()));
        }
        "ListEndpoints" => {
            let request = job.request::<ListEndpointsRequest>()?;
            responses.push(encoded(client.list_endpoints(request).await?.get_ref()));
        }
        "Complete" => {
            let stream = client.complete(job.request::<CompleteRequest>()?).await?.into_inner();
            return drained(stream, job, responses).await;
        }
        "WatchEndpoints" => {
            let stream = client.watch_endpoints(job.request::<WatchEndpointsRequest>()?).await?.into_inner();
            return drained(stream, job, responses).await;
        }
        method => return Err(Status::internal(format!("there is no method {method}"))),
    }
    Ok(End::Complete)
}

async fn drained<M: Message>(mut stream: Streaming<M>, job: &Job, responses: &mut Vec<String>) -> Result<End, Status> {
    while let Some(response) = stream.message().await? {
        responses.push(encoded(&response));
        if Some(responses.len() as u64) == job.0["cancel_after"].as_u64() {
            return Ok(End::Left);
        }
    }
    Ok(End::Complete)
}

fn failed(failure: &Failure) -> Value {
    let violations = failure.field_violations.iter().chain(&failure.quota_violations);
    json!({
        "status": name_of(failure.code),
        "message": failure.message,
        "reason": match failure.reason {
            ErrorReason::Unspecified => "",
            reason => reason.as_str_name(),
        },
        "metadata": failure.metadata,
        "violations": violations
            .map(|each| json!({"subject": each.subject, "description": each.description}))
            .collect::<Vec<_>>(),
        "no_eligible_endpoint": failure.no_eligible_endpoint.as_ref().map(encoded),
        "attempts_exhausted": failure.attempts_exhausted.as_ref().map(encoded),
        "retry_after_s": failure.retry_after.map(|delay| delay.as_secs_f64()),
    })
}

fn encoded(message: &impl Message) -> String {
    BASE64.encode(message.encode_to_vec())
}

/// The name of a code as the specification has it; tonic's has other case.
fn name_of(code: Code) -> String {
    let mut name = String::new();
    for letter in format!("{code:?}").chars() {
        if letter.is_ascii_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    name
}
