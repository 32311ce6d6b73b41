use std::task::{Context, Poll};
use std::time::Duration;

use tonic::body::Body;
use tonic::codegen::Service;
use tonic::codegen::http::{HeaderName, HeaderValue, Request, Response};
use tonic::metadata::{Ascii, MetadataValue, errors::InvalidMetadataValue};
use tonic::transport::channel::ResponseFuture;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Error};

use crate::v1::router_service_client::RouterServiceClient;

/// Where `pointsman serve` listens unless it is told otherwise.
pub const DEFAULT_TARGET: &str = "http://127.0.0.1:50061";

/// At most a page of 1,000 endpoints, or a decision over 4,096.
const RECEIVE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Error details travel in the trailers.
const HEADER_LIST_BYTES_MAX: u32 = 512 * 1024;
/// A connection that died without a word is noticed within 40 s.
const KEEPALIVE_TIME: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Deadlines of calls that set none: a decision takes milliseconds; an answer as long as reasoning models take for their
/// longest; a watch goes on until the caller has enough.
const DEFAULT_DEADLINE: HeaderValue = HeaderValue::from_static("10S");
const DEFAULT_COMPLETE_DEADLINE: HeaderValue = HeaderValue::from_static("600S");
const TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
const AUTHORIZATION: HeaderName = HeaderName::from_static("authorization");

/// The generated client over our transport. It serves any number of concurrent calls; a clone shares its connection.
pub type Client = RouterServiceClient<Transport>;

/// Says how to connect to a server.
#[derive(Clone, Debug)]
pub struct Connection {
    endpoint: Endpoint,
    tls: Option<ClientTlsConfig>,
    authorization: Option<MetadataValue<Ascii>>,
}

impl Connection {
    /// To the server at the target: `http://host:port`, or `https://host:port`, whose certificate is checked against the
    /// system's roots.
    ///
    /// # Errors
    /// The target is no such address.
    pub fn to(target: impl Into<String>) -> Result<Self, Error> {
        let target = target.into();
        let tls = target.starts_with("https://").then(|| ClientTlsConfig::new().with_native_roots());
        let endpoint = Endpoint::from_shared(target)?
            .http2_max_header_list_size(HEADER_LIST_BYTES_MAX)
            .http2_keep_alive_interval(KEEPALIVE_TIME)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT);
        Ok(Self { endpoint, tls, authorization: None })
    }

    /// Sends the key with every call.
    ///
    /// # Errors
    /// It is not of printable ASCII.
    pub fn api_key(mut self, key: &str) -> Result<Self, InvalidMetadataValue> {
        let mut value = MetadataValue::try_from(format!("Bearer {key}"))?;
        value.set_sensitive(true);
        self.authorization = Some(value);
        Ok(self)
    }

    /// Checks the server's certificate against these roots, in PEM, instead of the system's.
    #[must_use]
    pub fn roots(mut self, pem: impl AsRef<[u8]>) -> Self {
        self.tls = Some(ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem)));
        self
    }

    /// The client. It connects with the first call, which must be made within a Tokio runtime, as must this.
    ///
    /// # Errors
    /// The roots can't be read.
    pub fn client(self) -> Result<Client, Error> {
        let endpoint = match self.tls {
            Some(tls) => self.endpoint.tls_config(tls)?,
            None => self.endpoint,
        };
        let transport = Transport {
            channel: endpoint.connect_lazy(),
            authorization: self.authorization.map(|value| {
                let mut header = HeaderValue::from_bytes(value.as_bytes()).expect("it was metadata a moment ago");
                header.set_sensitive(true);
                header
            }),
        };
        Ok(RouterServiceClient::new(transport).max_decoding_message_size(RECEIVE_BYTES_MAX))
    }
}

/// The channel, which adds the key, and a deadline where the call has none.
#[derive(Clone, Debug)]
pub struct Transport {
    channel: Channel,
    authorization: Option<HeaderValue>,
}

impl Service<Request<Body>> for Transport {
    type Response = Response<Body>;
    type Error = Error;
    type Future = ResponseFuture;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.channel.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let deadline = match request.uri().path().rsplit('/').next() {
            Some("WatchEndpoints") => None,
            Some("Complete") => Some(DEFAULT_COMPLETE_DEADLINE),
            _ => Some(DEFAULT_DEADLINE),
        };
        let headers = request.headers_mut();
        if let Some(deadline) = deadline {
            headers.entry(TIMEOUT).or_insert(deadline);
        }
        if let Some(authorization) = &self.authorization {
            headers.entry(AUTHORIZATION).or_insert_with(|| authorization.clone());
        }
        self.channel.call(request)
    }
}
