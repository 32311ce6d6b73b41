//! Streams an answer.

use std::io::{Write, stdout};
use std::time::Duration;

use pointsman::v1::{CompleteRequest, Conversation, Routing, complete_response::Event};
use pointsman::{Connection, DEFAULT_TARGET, user};
use tonic::Request;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let target = std::env::args().nth(1).unwrap_or(DEFAULT_TARGET.into());
    let mut client = Connection::to(target)?.client()?;
    let mut request = Request::new(CompleteRequest {
        conversation: Some(Conversation { messages: vec![user("Why is the sky blue?")], ..Default::default() }),
        routing: Some(Routing { router: "cheap".into(), ..Default::default() }),
        ..Default::default()
    });
    // The deadline is the latency budget; dropping the stream closes the call at the provider.
    request.set_timeout(Duration::from_secs(60));
    let mut stream = client.complete(request).await?.into_inner();
    while let Some(response) = stream.message().await? {
        match response.event {
            Some(Event::Decision(decision)) => println!("-> {}", decision.endpoint),
            Some(Event::AttemptFailed(failed)) => println!("failed: {}", failed.message),
            Some(Event::Delta(delta)) => {
                print!("{}", delta.text);
                stdout().flush()?;
            }
            Some(Event::Done(done)) => println!("\n{}, ${:.6}", done.endpoint, done.cost_usd.unwrap_or(f64::NAN)),
            _ => {}
        }
    }
    Ok(())
}
