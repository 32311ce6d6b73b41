"""Generated from proto/pointsman/v1 by `make stubs`; do not edit."""
