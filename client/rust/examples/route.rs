//! Asks where a prompt should go.

use pointsman::v1::{Conversation, RouteRequest, Routing};
use pointsman::{Connection, DEFAULT_TARGET, Failure, user};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let target = std::env::args().nth(1).unwrap_or(DEFAULT_TARGET.into());
    let mut client = Connection::to(target)?.client()?;
    let request = RouteRequest {
        conversation: Some(Conversation { messages: vec![user("What is 17 * 23?")], ..Default::default() }),
        routing: Some(Routing { router: "router@q:1|rc:5|c<2".into(), ..Default::default() }),
    };
    let response = client.route(request).await.inspect_err(|status| {
        for candidate in Failure::of(status).no_eligible_endpoint.unwrap_or_default().candidates {
            eprintln!("{} {:?}", candidate.endpoint, candidate.rejections);
        }
    })?;
    for candidate in response.into_inner().decision.unwrap_or_default().candidates {
        if candidate.rank > 0 {
            let quality = candidate.quality.unwrap_or_default().mean;
            println!("{}. {}, quality {quality:.2}", candidate.rank, candidate.endpoint);
        }
    }
    Ok(())
}
