// Package pointsman talks to a Pointsman server, an LLM router that runs as a gRPC microservice.
//
// [NewClient] gives the generated client of package pointsmanv1 over a connection with the settings that every client
// of Pointsman has. Deadlines and cancelling are the context's, and [ErrorOf] reads what a failed call tells.
package pointsman

import (
	"context"
	"crypto/tls"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"

	"github.com/pointsman/pointsman/client/go/pointsmanv1"
)

const (
	// What is too large the server says, with its limit, which can be set as high as this.
	maxSendBytes = 256 << 20
	// At most a page of 1,000 endpoints, or a decision over 4,096.
	maxReceiveBytes = 16 << 20
	// Error details travel in the trailers.
	maxHeaderListBytes = 512 << 10
	// A connection that died without a word is noticed within 40 s.
	keepaliveTime    = 30 * time.Second
	keepaliveTimeout = 10 * time.Second
	// A decision takes milliseconds, so this only ends a call that hangs.
	defaultTimeout = 10 * time.Second
	// As long as reasoning models take for their longest answers.
	completeTimeout = 600 * time.Second
)

// Client is the generated client with its connection. It serves any number of concurrent calls.
type Client struct {
	pointsmanv1.RouterServiceClient
	connection *grpc.ClientConn
}

// Option changes how a client connects.
type Option func(*settings)

type settings struct {
	tls    *tls.Config
	apiKey string
}

// WithTLS secures the connection. An empty config checks the server's certificate against the system's roots.
func WithTLS(config *tls.Config) Option {
	return func(s *settings) { s.tls = config }
}

// WithAPIKey sends the key with every call.
func WithAPIKey(key string) Option {
	return func(s *settings) { s.apiKey = key }
}

// NewClient makes a client of the server at target: host:port, or another name that gRPC resolves. It connects with the
// first call. A call whose context has no deadline has one of 10 s, and Complete one of 600 s; Route and the lists are
// tried again while the server is unavailable.
func NewClient(target string, options ...Option) (*Client, error) {
	var s settings
	for _, option := range options {
		option(&s)
	}
	transport := insecure.NewCredentials()
	if s.tls != nil {
		transport = credentials.NewTLS(s.tls)
	}
	dialOptions := []grpc.DialOption{
		grpc.WithTransportCredentials(transport),
		grpc.WithDefaultServiceConfig(pointsmanv1.ServiceConfig),
		grpc.WithDefaultCallOptions(grpc.MaxCallSendMsgSize(maxSendBytes), grpc.MaxCallRecvMsgSize(maxReceiveBytes)),
		grpc.WithMaxHeaderListSize(maxHeaderListBytes),
		grpc.WithUnaryInterceptor(unaryDeadline),
		grpc.WithStreamInterceptor(streamDeadline),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: keepaliveTime, Timeout: keepaliveTimeout}),
	}
	if s.apiKey != "" {
		dialOptions = append(dialOptions, grpc.WithPerRPCCredentials(bearer(s.apiKey)))
	}
	connection, err := grpc.NewClient(target, dialOptions...)
	if err != nil {
		return nil, err
	}
	return &Client{pointsmanv1.NewRouterServiceClient(connection), connection}, nil
}

// Close ends the connection and the calls on it.
func (c *Client) Close() error { return c.connection.Close() }

// withDeadline gives a context that has a deadline; a watch needs none. In the service config it would be the most that a
// caller can ask for.
func withDeadline(ctx context.Context, method string) (context.Context, context.CancelFunc) {
	if _, set := ctx.Deadline(); set || method == pointsmanv1.RouterService_WatchEndpoints_FullMethodName {
		return ctx, func() {}
	}
	if method == pointsmanv1.RouterService_Complete_FullMethodName {
		return context.WithTimeout(ctx, completeTimeout)
	}
	return context.WithTimeout(ctx, defaultTimeout)
}

func unaryDeadline(
	ctx context.Context, method string, request, response any,
	connection *grpc.ClientConn, invoke grpc.UnaryInvoker, options ...grpc.CallOption,
) error {
	ctx, cancel := withDeadline(ctx, method)
	defer cancel()
	return invoke(ctx, method, request, response, connection, options...)
}

func streamDeadline(
	ctx context.Context, description *grpc.StreamDesc, connection *grpc.ClientConn, method string,
	open grpc.Streamer, options ...grpc.CallOption,
) (grpc.ClientStream, error) {
	ctx, cancel := withDeadline(ctx, method)
	stream, err := open(ctx, description, connection, method, append(options, grpc.OnFinish(func(error) { cancel() }))...)
	if err != nil {
		cancel()
	}
	return stream, err
}

// bearer is an API key as gRPC wants credentials of a call.
type bearer string

func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(b)}, nil
}

// RequireTransportSecurity is false: a server on loopback, or behind a proxy that ends TLS, may ask for a key as well.
func (b bearer) RequireTransportSecurity() bool { return false }
