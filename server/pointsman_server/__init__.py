"""Pointsman: an LLM router that runs as a gRPC microservice."""
