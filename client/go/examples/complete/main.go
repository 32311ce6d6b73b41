// Streams an answer.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"time"

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

	// The deadline is the latency budget; cancelling closes the call at the provider.
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	stream, err := client.Complete(ctx, &pointsmanv1.CompleteRequest{
		Conversation: &pointsmanv1.Conversation{Messages: []*pointsmanv1.Message{pointsman.User("Why is the sky blue?")}},
		Routing:      &pointsmanv1.Routing{Router: "cheap"},
	})
	if err != nil {
		log.Fatal(pointsman.ErrorOf(err))
	}
	for {
		response, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			log.Fatal(pointsman.ErrorOf(err))
		}
		switch event := response.GetEvent().(type) {
		case *pointsmanv1.CompleteResponse_Decision:
			fmt.Println("->", event.Decision.GetEndpoint())
		case *pointsmanv1.CompleteResponse_AttemptFailed:
			fmt.Println("failed:", event.AttemptFailed.GetMessage())
		case *pointsmanv1.CompleteResponse_Delta:
			fmt.Print(event.Delta.GetText())
		case *pointsmanv1.CompleteResponse_Done:
			fmt.Printf("\n%s, $%.6f\n", event.Done.GetEndpoint(), event.Done.GetCostUsd())
		}
	}
}
