// Asks where a prompt should go.
package main

import (
	"context"
	"fmt"
	"log"
	"os"

	pointsman "github.com/pointsman/pointsman/client/go"
	"github.com/pointsman/pointsman/client/go/pointsmanv1"
)

func main() {
	target := "127.0.0.1:50061"
	if len(os.Args) > 1 {
		target = os.Args[1]
	}
	client, err := pointsman.NewClient(target)
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()

	response, err := client.Route(context.Background(), &pointsmanv1.RouteRequest{
		Conversation: &pointsmanv1.Conversation{Messages: []*pointsmanv1.Message{pointsman.User("What is 17 * 23?")}},
		Routing:      &pointsmanv1.Routing{Router: "router@q:1|rc:5|c<2"},
	})
	if failed := pointsman.ErrorOf(err); failed != nil {
		for _, candidate := range failed.NoEligibleEndpoint.GetCandidates() {
			fmt.Println(candidate.GetEndpoint(), candidate.GetRejections())
		}
		log.Fatal(failed)
	}
	for _, candidate := range response.GetDecision().GetCandidates() {
		if candidate.GetRank() > 0 {
			fmt.Printf("%d. %s, quality %.2f\n", candidate.GetRank(), candidate.GetEndpoint(), candidate.GetQuality().GetMean())
		}
	}
}
