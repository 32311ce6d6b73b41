package pointsman

import (
	"fmt"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/pointsman/pointsman/client/go/pointsmanv1"
)

// errorDomain is that of the ErrorInfo whose reasons are of Pointsman; a proxy's own ErrorInfo has another.
const errorDomain = "pointsman"

// Error tells how a call failed, as far as the server said. What it did not say is empty.
type Error struct {
	Code    codes.Code
	Message string
	// Reason is UNSPECIFIED where the failure did not come from Pointsman.
	Reason pointsmanv1.ErrorReason
	// Metadata has the facts that belong to the reason; ErrorReason documents them.
	Metadata map[string]string
	// FieldViolations has every fault of a wrong request.
	FieldViolations []*errdetails.BadRequest_FieldViolation
	// QuotaViolations has the limits that are reached.
	QuotaViolations []*errdetails.QuotaFailure_Violation
	// NoEligibleEndpoint has the rejections, and the nearest changes of bounds that would be enough.
	NoEligibleEndpoint *pointsmanv1.NoEligibleEndpoint
	// AttemptsExhausted has what each attempt met.
	AttemptsExhausted *pointsmanv1.AttemptsExhausted
	// RetryAfter is how long to wait before trying again. Nil: the server did not say.
	RetryAfter *time.Duration
}

// Error is the server's message.
func (e *Error) Error() string { return fmt.Sprintf("%s: %s", e.Code, e.Message) }

// ErrorOf reads how a call failed. It is nil for a nil err, and for an error that is no gRPC status.
func ErrorOf(err error) *Error {
	failed, ok := status.FromError(err)
	if err == nil || !ok {
		return nil
	}
	read := &Error{Code: failed.Code(), Message: failed.Message()}
	for _, detail := range failed.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			if detail.GetDomain() == errorDomain {
				read.Reason = pointsmanv1.ErrorReason(pointsmanv1.ErrorReason_value[detail.GetReason()])
				read.Metadata = detail.GetMetadata()
			}
		case *errdetails.BadRequest:
			read.FieldViolations = detail.GetFieldViolations()
		case *errdetails.QuotaFailure:
			read.QuotaViolations = detail.GetViolations()
		case *pointsmanv1.NoEligibleEndpoint:
			read.NoEligibleEndpoint = detail
		case *pointsmanv1.AttemptsExhausted:
			read.AttemptsExhausted = detail
		case *errdetails.RetryInfo:
			delay := detail.GetRetryDelay().AsDuration()
			read.RetryAfter = &delay
		}
	}
	return read
}
