//! Client of Pointsman, an LLM router that runs as a gRPC microservice.
//!
//! [`Connection`] gives the generated client of [`v1`] over a channel with the settings that every client of Pointsman
//! has. Dropping a call cancels it, and with it the call at the provider. [`Failure`] reads what a failed call tells.
//! [`retried`] rides out a replica's restart, for the calls that change nothing.

mod connection;
mod failure;
mod retry;

pub use connection::{Client, Connection, DEFAULT_TARGET, Transport};
pub use failure::{Failure, Violation};
pub use retry::retried;

/// The protocol: messages and client, generated.
#[allow(missing_docs, clippy::all)]
pub mod v1 {
    include!("generated/pointsman.v1.rs");
}

/// `google.rpc`: what error details are made of, generated.
#[allow(missing_docs, clippy::all, rustdoc::all)]
pub mod rpc {
    include!("generated/google.rpc.rs");
}

/// A turn of the person or program that asks.
pub fn user(text: impl Into<String>) -> v1::Message {
    text_message(v1::Role::User, text.into())
}

/// Instructions of the application.
pub fn system(text: impl Into<String>) -> v1::Message {
    text_message(v1::Role::System, text.into())
}

fn text_message(role: v1::Role, text: String) -> v1::Message {
    v1::Message {
        role: role.into(),
        parts: vec![v1::Part { content: Some(v1::part::Content::Text(v1::TextPart { text })) }],
        ..Default::default()
    }
}
