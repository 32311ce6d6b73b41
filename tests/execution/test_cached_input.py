"""What an endpoint has in its prompt cache it need not read: the aggregator learns from the length that it did read."""

from __future__ import annotations

from execution.played import STOP, Script, Stage, always
from pointsman_server.chat import Usage, UsageReported
from pointsman_server.runtime.prompt_cache import BEGINNING_TOKEN_COUNT_MIN
from pointsman_server.runtime.tracker import Attempt, RuntimeTracker

from benchmarks.drift.loop import run_virtually

PROMPT = "word " * BEGINNING_TOKEN_COUNT_MIN
ALL_CACHED = UsageReported(Usage(input_token_count=1300, output_token_count=1, cached_input_token_count=1300))
ANSWER: Script = (0.1, "f", ALL_CACHED, STOP)


class Listening(RuntimeTracker):
    """An aggregator that remembers how long the inputs are said to be."""

    def __init__(self) -> None:
        super().__init__()
        self.told_counts: list[int] = []

    def start(self, endpoint_name: str, *, input_token_count: int, now_s: float) -> Attempt:
        """As the aggregator's own."""
        self.told_counts.append(input_token_count)
        return super().start(endpoint_name, input_token_count=input_token_count, now_s=now_s)


def test_the_aggregator_is_told_what_is_left_to_read() -> None:
    """As long as nothing is known of a cache it is the whole input; once answers have told of hits it is ever less."""

    async def scenario() -> list[int]:
        tracker = Listening()
        stage = Stage(tracker=tracker, x=always(ANSWER))
        for _ in range(5):
            async for _event in stage.events(prompt=PROMPT):
                pass
        return tracker.told_counts

    first, second, *later = run_virtually(scenario())
    assert first == second > BEGINNING_TOKEN_COUNT_MIN
    assert second > later[0] > later[1] > later[2]
