"""The only place that knows gRPC and protobuf."""
