// The runner of the conformance suite: takes calls as lines of JSON, and answers each with what the client saw. See
// conformance/runner.py.
package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"strings"
	"time"
	"unicode"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	pointsman "github.com/pointsman/pointsman/client/go"
	pb "github.com/pointsman/pointsman/client/go/pointsmanv1"
)

type job struct {
	Target        string            `json:"target"`
	AuthorityFile string            `json:"authority_file"`
	APIKey        string            `json:"api_key"`
	Metadata      map[string]string `json:"metadata"`
	TimeoutS      float64           `json:"timeout_s"`
	CancelAfter   int               `json:"cancel_after"`
	Method        string            `json:"method"`
	Requests      [][]byte          `json:"requests"`
}

type violation struct {
	Subject     string `json:"subject"`
	Description string `json:"description"`
}

type result struct {
	Status             string            `json:"status"`
	Message            string            `json:"message"`
	Reason             string            `json:"reason"`
	Metadata           map[string]string `json:"metadata"`
	Violations         []violation       `json:"violations"`
	NoEligibleEndpoint []byte            `json:"no_eligible_endpoint"`
	AttemptsExhausted  []byte            `json:"attempts_exhausted"`
	RetryAfterS        *float64          `json:"retry_after_s"`
	Responses          [][]byte          `json:"responses"`
}

// errEnough ends a call whose caller has seen enough of it.
var errEnough = errors.New("enough")

func main() {
	clients := map[[3]string]*pointsman.Client{}
	input := bufio.NewReaderSize(os.Stdin, 1<<20)
	output := json.NewEncoder(os.Stdout)
	for {
		line, err := input.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			break
		}
		var j job
		must(errors.Join(err, json.Unmarshal(line, &j)))
		key := [3]string{j.Target, j.AuthorityFile, j.APIKey}
		if clients[key] == nil {
			clients[key] = connected(j)
		}
		must(output.Encode(perform(clients[key], j)))
	}
	for _, client := range clients {
		must(client.Close())
	}
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func connected(j job) *pointsman.Client {
	var options []pointsman.Option
	if j.APIKey != "" {
		options = append(options, pointsman.WithAPIKey(j.APIKey))
	}
	if j.AuthorityFile != "" {
		authority, err := os.ReadFile(j.AuthorityFile)
		must(err)
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(authority)
		options = append(options, pointsman.WithTLS(&tls.Config{RootCAs: roots}))
	}
	client, err := pointsman.NewClient(j.Target, options...)
	must(err)
	return client
}

// perform makes the call, and leaves it after cancel_after responses.
func perform(client *pointsman.Client, j job) result {
	ctx, cancel := context.WithCancel(metadata.NewOutgoingContext(context.Background(), metadata.New(j.Metadata)))
	defer cancel()
	if j.TimeoutS > 0 {
		ctx, cancel = context.WithTimeout(ctx, time.Duration(j.TimeoutS*float64(time.Second)))
		defer cancel()
	}
	responses := [][]byte{}
	err := call(ctx, client, j, func(response proto.Message) error {
		encoded, err := proto.Marshal(response)
		responses = append(responses, encoded)
		if err == nil && len(responses) == j.CancelAfter {
			cancel()
			return errEnough
		}
		return err
	})
	seen := resultOf(err)
	seen.Responses = responses
	return seen
}

func call(ctx context.Context, client *pointsman.Client, j job, take func(proto.Message) error) error {
	switch j.Method {
	case "Route":
		response, err := client.Route(ctx, request(j.Requests[0], &pb.RouteRequest{}))
		return taken(response, err, take)
	case "ReportOutcome":
		response, err := client.ReportOutcome(ctx, request(j.Requests[0], &pb.ReportOutcomeRequest{}))
		return taken(response, err, take)
	case "ListEndpoints":
		response, err := client.ListEndpoints(ctx, request(j.Requests[0], &pb.ListEndpointsRequest{}))
		return taken(response, err, take)
	case "ReportOutcomes":
		stream, err := client.ReportOutcomes(ctx)
		for _, each := range j.Requests {
			if err == nil {
				err = stream.Send(request(each, &pb.ReportOutcomesRequest{}))
			}
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		response, err := stream.CloseAndRecv()
		return taken(response, err, take)
	case "Complete":
		stream, err := client.Complete(ctx, request(j.Requests[0], &pb.CompleteRequest{}))
		return drained(stream, err, take)
	case "WatchEndpoints":
		stream, err := client.WatchEndpoints(ctx, request(j.Requests[0], &pb.WatchEndpointsRequest{}))
		return drained(stream, err, take)
	}
	return fmt.Errorf("there is no method %s", j.Method)
}

func request[M proto.Message](encoded []byte, message M) M {
	must(proto.Unmarshal(encoded, message))
	return message
}

func taken(response proto.Message, err error, take func(proto.Message) error) error {
	if err != nil {
		return err
	}
	return take(response)
}

func drained[T any, M interface {
	*T
	proto.Message
}](stream grpc.ServerStreamingClient[T], err error, take func(proto.Message) error) error {
	for err == nil {
		var response *T
		if response, err = stream.Recv(); err == nil {
			err = take(M(response))
		}
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

func resultOf(err error) result {
	if errors.Is(err, errEnough) {
		return result{Status: "CANCELLED"}
	}
	failed := pointsman.ErrorOf(err)
	if failed == nil {
		must(err)
		return result{Status: "OK"}
	}
	seen := result{Status: screamingSnake(failed.Code), Message: failed.Message, Metadata: failed.Metadata}
	if failed.Reason != pb.ErrorReason_ERROR_REASON_UNSPECIFIED {
		seen.Reason = failed.Reason.String()
	}
	for _, each := range failed.FieldViolations {
		seen.Violations = append(seen.Violations, violation{each.GetField(), each.GetDescription()})
	}
	for _, each := range failed.QuotaViolations {
		seen.Violations = append(seen.Violations, violation{each.GetSubject(), each.GetDescription()})
	}
	if failed.NoEligibleEndpoint != nil {
		seen.NoEligibleEndpoint, err = proto.Marshal(failed.NoEligibleEndpoint)
		must(err)
	}
	if failed.AttemptsExhausted != nil {
		seen.AttemptsExhausted, err = proto.Marshal(failed.AttemptsExhausted)
		must(err)
	}
	if failed.RetryAfter != nil {
		retryAfterS := failed.RetryAfter.Seconds()
		seen.RetryAfterS = &retryAfterS
	}
	return seen
}

// screamingSnake is the name of a code as the specification has it; Go's has other case.
func screamingSnake(code codes.Code) string {
	if code == codes.Canceled {
		return "CANCELLED"
	}
	var name strings.Builder
	for index, letter := range code.String() {
		if index > 0 && unicode.IsUpper(letter) {
			name.WriteByte('_')
		}
		name.WriteRune(unicode.ToUpper(letter))
	}
	return name.String()
}
