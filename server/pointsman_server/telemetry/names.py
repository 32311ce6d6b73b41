"""Every name that telemetry uses, in one place: spans, attributes, events, metrics.

Names of the OpenTelemetry semantic conventions are written out here rather than imported, because the conventions for
generative AI and RPC are still in development and their Python module moves with every release: what a dashboard reads
must change by our own decision.
"""

from __future__ import annotations

SEMANTIC_CONVENTIONS_VERSION = "1.44.0"
"""Version of the semantic conventions that the names are taken from."""
SCHEMA_URL = f"https://opentelemetry.io/schemas/{SEMANTIC_CONVENTIONS_VERSION}"
SCOPE_NAME = "pointsman"
"""Instrumentation scope of every span and metric."""

# Spans. A call's span is named by its method, an attempt's "chat {model}".
ROUTE_SPAN = "route"
PROBE_SPAN = "probe"
CHAT_OPERATION = "chat"

# Attributes of the semantic conventions.
SERVICE_NAME = "service.name"
RPC_SYSTEM_NAME = "rpc.system.name"
RPC_METHOD = "rpc.method"
RPC_RESPONSE_STATUS_CODE = "rpc.response.status_code"
ERROR_TYPE = "error.type"
SERVER_ADDRESS = "server.address"
GEN_AI_OPERATION_NAME = "gen_ai.operation.name"
GEN_AI_PROVIDER_NAME = "gen_ai.provider.name"
GEN_AI_REQUEST_MODEL = "gen_ai.request.model"
GEN_AI_RESPONSE_MODEL = "gen_ai.response.model"
GEN_AI_RESPONSE_FINISH_REASONS = "gen_ai.response.finish_reasons"
GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK = "gen_ai.response.time_to_first_chunk"
GEN_AI_USAGE_INPUT_TOKENS = "gen_ai.usage.input_tokens"
GEN_AI_USAGE_OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS = "gen_ai.usage.cache_read.input_tokens"
GEN_AI_USAGE_REASONING_OUTPUT_TOKENS = "gen_ai.usage.reasoning.output_tokens"
GEN_AI_TOKEN_TYPE = "gen_ai.token.type"

# Attributes of our own.
ENDPOINT = "pointsman.endpoint"
ERROR_REASON = "pointsman.error.reason"
ROUTER_NAME = "pointsman.router.name"
ROUTER_VERSION = "pointsman.router.version"
ROUTER_ASKED = "pointsman.router.asked"
"""The router whose split had another one, or itself, decide; absent where the router that was asked for has no split."""
ASSIGNMENT_PROBABILITY = "pointsman.assignment.probability"
ASSIGNMENT_KEYED = "pointsman.assignment.keyed"
ATTEMPT_NUMBER = "pointsman.attempt.number"
ATTEMPT_HEDGE = "pointsman.attempt.hedge"
"""Present, and true, where the attempt was begun beside another one that was slow."""
HEDGE_RESULT = "pointsman.hedge.result"
CANDIDATES_TOTAL = "pointsman.candidates.total"
CANDIDATES_ELIGIBLE = "pointsman.candidates.eligible"
DECISION_ID = "pointsman.decision.id"
DECISION_ENDPOINT = "pointsman.decision.endpoint"
DECISION_REASON = "pointsman.decision.reason"
DECISION_PREDICTED_QUALITY = "pointsman.decision.predicted_quality"
DECISION_EXPECTED_COST_USD = "pointsman.decision.expected_cost_usd"
DECISION_EXPECTED_TTFT_S = "pointsman.decision.expected_ttft_s"
DECISION_RUNNER_UP = "pointsman.decision.runner_up"
REJECTION_REASON = "pointsman.rejection.reason"
QUALITY_ARTIFACT = "pointsman.quality.artifact"
ARTIFACT_PATH = "pointsman.artifact.path"
ARTIFACT_RESULT = "pointsman.artifact.result"

# The event that tells of one candidate, and its attributes.
CANDIDATE_EVENT = "pointsman.candidate"
CANDIDATE_ENDPOINT = "pointsman.candidate.endpoint"
CANDIDATE_UTILITY = "pointsman.candidate.utility"
CANDIDATE_PROBABILITY = "pointsman.candidate.probability"
CANDIDATE_PREDICTED_QUALITY = "pointsman.candidate.predicted_quality"
CANDIDATE_EXPECTED_COST_USD = "pointsman.candidate.expected_cost_usd"
CANDIDATE_EXPECTED_TTFT_S = "pointsman.candidate.expected_ttft_s"
CANDIDATE_REJECTIONS = "pointsman.candidate.rejections"

# The event that tells of what one shadow would have chosen, and its attributes; metrics have the first ones too.
SHADOW_EVENT = "pointsman.shadow"
SHADOW_ROUTER = "pointsman.shadow.router"
SHADOW_AGREEMENT = "pointsman.shadow.agreement"
SHADOW_SIDE = "pointsman.shadow.side"
SHADOW_ENDPOINT = "pointsman.shadow.endpoint"
SHADOW_ROUTER_VERSION = "pointsman.shadow.router.version"
SHADOW_QUALITY_ARTIFACT = "pointsman.shadow.quality.artifact"
SHADOW_PREDICTED_QUALITY = "pointsman.shadow.predicted_quality"
SHADOW_EXPECTED_COST_USD = "pointsman.shadow.expected_cost_usd"

# Metrics of the semantic conventions.
RPC_SERVER_CALL_DURATION = "rpc.server.call.duration"
GEN_AI_CLIENT_TIME_TO_FIRST_CHUNK = "gen_ai.client.operation.time_to_first_chunk"
GEN_AI_CLIENT_TOKEN_USAGE = "gen_ai.client.token.usage"

# Metrics of our own.
DECISIONS = "pointsman.decisions"
REJECTIONS = "pointsman.rejections"
ROUTING_DURATION = "pointsman.routing.duration"
INTER_TOKEN_LATENCY = "pointsman.inter_token_latency"
COST = "pointsman.cost"
ATTEMPT_FAILURES = "pointsman.attempt.failures"
HEDGES = "pointsman.hedges"
FAILOVERS_REFUSED = "pointsman.failovers.refused"
PROBES = "pointsman.probes"
PROBE_TOKENS = "pointsman.probe.tokens"
OUTCOMES = "pointsman.outcomes"
REPORTED_QUALITY = "pointsman.reported_quality"
ROUTER_COST = "pointsman.router.cost"
SHADOW_DECISIONS = "pointsman.shadow.decisions"
SHADOW_QUALITY = "pointsman.shadow.quality"
SHADOW_COST = "pointsman.shadow.cost"
ARTIFACT_READS = "pointsman.artifact.reads"

# Values.
RPC_SYSTEM_GRPC = "grpc"
TOKEN_TYPE_INPUT = "input"
TOKEN_TYPE_OUTPUT = "output"
ERROR_TYPE_CANCELLED = "cancelled"
"""`error.type` of an attempt that its caller left."""
SIDE_ACTING = "acting"
SIDE_SHADOW = "shadow"
ARTIFACT_LOADED = "loaded"
ARTIFACT_REFUSED = "refused"
REASON_NONE_ELIGIBLE = "none_eligible"
"""`pointsman.decision.reason` where nothing could be chosen."""
