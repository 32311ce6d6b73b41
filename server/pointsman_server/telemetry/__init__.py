"""What the router did and why, as OpenTelemetry spans and metrics. It tells and never decides; off, it costs nothing."""
