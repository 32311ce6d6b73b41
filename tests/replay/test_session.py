"""Decisions are repeated or their differences told; another router is weighed rightly, and doubted where it must be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from decision_log.samples import SAMPLE, logged
from hypothesis import given, settings
from pointsman_server.decision.assignment import assign
from pointsman_server.decision.decide import decide
from pointsman_server.decision.resolve import NamedRouter
from pointsman_server.decision.router_string import RouterAlternative, RouterString, parse_router_string
from pointsman_server.decision.types import (
    Arm,
    Assignment,
    DecisionInput,
    Endpoint,
    Exploration,
    Policy,
    SearchSpace,
)
from pointsman_server.decision_log.codec import LineWriter
from pointsman_server.decision_log.reader import DecisionLogReader, LoggedRequest
from pointsman_server.decision_log.records import (
    CompletionResult,
    LoggedAttempt,
    LoggedCompletion,
    LoggedDecision,
    LoggedReport,
    Record,
    Setting,
)
from pointsman_server.errors import InvalidRequestError, UpstreamErrorKind
from pointsman_server.replay.again import Challenger, ChallengerDecisions, differences, logging_probabilities
from pointsman_server.replay.evidence import Outcome, seen
from pointsman_server.replay.session import Replay, replay
from strategies import decision_inputs

NOTHING = RouterAlternative(head="")
LARGE, SMALL = "large@north", "small@north"
ONLY_SMALL = Policy(SearchSpace(models=frozenset({"small"})))
WIDE = Exploration(rate=0.0, near_tie_width=1.0)
"""Chooses either of the sample's endpoints, with probabilities that are known to nobody but the decision."""


def recorded(
    given_: DecisionInput,
    routers: dict[str, NamedRouter] | None = None,
    *,
    asked: str = "",
    overlay: RouterAlternative = NOTHING,
    artifacts: dict[str, str] | None = None,
) -> LoggedDecision:
    """A record of a decision among these routers."""
    routers = routers or {"default": NamedRouter("default")}
    setting = Setting(
        given_.endpoints, {"large": "large", "small": "small"}, routers, artifacts or dict.fromkeys(routers, "")
    )
    return replace(logged(given_, overlay=overlay, setting=setting), asked=parse_router_string(asked))


def ended(record: LoggedDecision, **fields: object) -> LoggedCompletion:
    """What became of it."""
    chosen = record.decision.chosen
    assert chosen is not None
    values = {
        "result": CompletionResult.DONE,
        "endpoint_name": chosen.endpoint.name,
        "ttft_s": 0.5,
        "duration_s": 2.0,
        "cost_usd": 0.001,
        "attempt_count": 1,
        "attempts": (
            LoggedAttempt(number=1, endpoint_name=chosen.endpoint.name, input_token_count=10, output_token_count=100),
        ),
    }
    return LoggedCompletion(decision_id=record.decision_id, time_unix_s=1.0, **(values | fields))  # type: ignore[arg-type]


def judged(record: LoggedDecision, quality: float) -> LoggedReport:
    """How good its answer was found."""
    chosen = record.decision.chosen
    assert chosen is not None
    return LoggedReport(
        decision_id=record.decision_id, time_unix_s=2.0, endpoint_name=chosen.endpoint.name, quality=quality
    )


def replayed(directory: Path, records: list[Record], challenger: str | None = None) -> Replay:
    """What a replay of a log of these records finds."""
    writer = LineWriter()
    lines = [line + b"\n" for record in records for line in writer.lines(record)]
    (directory / "decisions-1.jsonl").write_bytes(b"".join(lines))
    asked = None if challenger is None else Challenger(router=parse_router_string(challenger))
    return replay(DecisionLogReader(directory), asked, progress=lambda: None)


@settings(max_examples=50)
@given(decision_inputs())
def test_what_is_logged_is_repeated(given_: DecisionInput) -> None:
    """Any decision on any input has no differences."""
    assert differences(logged(given_)) == ()


def test_what_is_not_repeated_is_told_field_by_field() -> None:
    """A log of other rules, here of another seed's choice and of a better quality, says who and what differs."""
    record = recorded(SAMPLE._replace(exploration=WIDE))
    seeds = {decide(record.given._replace(seed=seed)).candidates[0].endpoint.name: seed for seed in range(50)}
    other = decide(record.given._replace(seed=seeds[SMALL]))
    assert record.decision.candidates[0].endpoint.name == LARGE
    assert differences(replace(record, decision=other))[0] == f"endpoint was {SMALL}, is {LARGE}"
    better = record.given._replace(qualities={**record.given.qualities, "large": SAMPLE.qualities["small"]})
    found = differences(replace(record, decision=decide(better)))
    assert any(text.startswith(f"quality of {LARGE} was QualityPrediction(mean=0.6") for text in found), found


def test_a_replay_counts_what_is_repeated_and_what_is_damaged(tmp_path: Path) -> None:
    """Three decisions, one of which was decided otherwise, and a line that is cut off."""
    same = [recorded(SAMPLE._replace(decision_id=f"d-{n}", seed=n)) for n in range(2)]
    odd = recorded(SAMPLE._replace(decision_id="odd"))
    odd = replace(odd, decision=decide(odd.given._replace(alternatives=(ONLY_SMALL,))))
    found = replayed(tmp_path, [*same, odd])
    assert (found.decision_count, found.identical_count, found.comparison) == (3, 2, None)
    assert [different.decision_id for different in found.different] == ["odd"]
    with (tmp_path / "decisions-1.jsonl").open("ab") as file:
        file.write(b'{"kind":"dec')
    again = replay(DecisionLogReader(tmp_path), None, progress=lambda: None)
    assert (again.decision_count, again.damaged_line_count) == (3, 1)


def test_a_challenger_stands_in_for_the_router_that_was_asked_for() -> None:
    """It decides under the caller's own wishes, which are kept, and by its own policy; a name that is not there is told."""
    routers = {"default": NamedRouter("default"), "thrifty": NamedRouter("thrifty", (ONLY_SMALL,))}
    without_large = RouterAlternative("", SearchSpace(skip_models=frozenset({"large"})))

    def chosen_by(router: str, record: LoggedDecision) -> str | None:
        chosen = ChallengerDecisions(Challenger(router=parse_router_string(router))).decide(record).chosen
        return None if chosen is None else chosen.endpoint.name

    plain = recorded(SAMPLE, routers)
    assert chosen_by("router", plain) == LARGE
    assert chosen_by("thrifty", plain) == chosen_by("router@lowest-rc", plain) == SMALL
    assert chosen_by("router", recorded(SAMPLE, routers, overlay=without_large)) == SMALL
    assert chosen_by("thrifty", recorded(SAMPLE, routers, asked="large")) == LARGE
    only_large = RouterAlternative("", SearchSpace(models=frozenset({"large"})))
    assert chosen_by("thrifty", recorded(SAMPLE, routers, overlay=only_large)) is None
    assert chosen_by("router@lowest-rc", recorded(SAMPLE, routers, asked="router@highest-quality")) == LARGE
    with pytest.raises(InvalidRequestError, match="no router and no model is named 'nobody'"):
        chosen_by("nobody", plain)


def test_a_challenger_has_its_own_catalog() -> None:
    """Other prices and other endpoints are its own; the qualities are those of the log."""
    dear = (Endpoint("large", "north", 900.0, 900.0), Endpoint("small", "north", 0.1, 0.2))
    challenger = Challenger(router=RouterString((RouterAlternative("router"),)), endpoints=dear)
    decision = ChallengerDecisions(challenger).decide(recorded(SAMPLE))
    assert decision.candidates[0].endpoint == dear[1]


def test_propensities_of_a_split_are_those_of_its_arms_together() -> None:
    """Each arm counts by its share, whichever decided; over all seeds the endpoints are chosen as often."""
    routers = {
        "default": NamedRouter("default", exploration=WIDE, split=(Arm("thrifty", 0.3),)),
        "thrifty": NamedRouter("thrifty", (ONLY_SMALL,)),
    }
    chosen, count = 0, 2000
    for seed in range(count):
        assigned = assign(parse_router_string(""), routers, key="", seed=seed)
        router = routers[assigned.router_name]
        given_ = SAMPLE._replace(
            seed=seed,
            alternatives=router.alternatives,
            exploration=router.exploration,
            router_name=router.name,
            assignment=assigned,
        )
        record = recorded(given_, routers)
        probabilities, whole = logging_probabilities(record)
        assert whole
        assert sum(probabilities.values()) == pytest.approx(1.0)
        chosen += record.decision.candidates[0].endpoint.name == SMALL
    # Four standard errors.
    assert chosen / count == pytest.approx(probabilities[SMALL], abs=4 * 0.5 / count**0.5)
    alone = decide(SAMPLE._replace(exploration=WIDE))
    own = {candidate.endpoint.name: candidate.probability for candidate in alone.candidates}
    assert probabilities[SMALL] == pytest.approx(0.3 + 0.7 * own[SMALL])


def test_arms_with_another_quality_model_are_weighed_alone() -> None:
    """What the other arm would have predicted is not in the log, so the acting one's probabilities count."""
    routers = {"default": NamedRouter("default", split=(Arm("new", 0.5),)), "new": NamedRouter("new", (ONLY_SMALL,))}
    given_ = SAMPLE._replace(assignment=Assignment("default", "default", 0.5), quality_artifact="a@1")
    record = recorded(given_, routers, artifacts={"default": "a@1", "new": "b@1"})
    assert logging_probabilities(record) == ({LARGE: 1.0}, False)


def test_what_came_of_a_request_is_read_off_its_records() -> None:
    """Of calls made here by the completion, of calls of the caller's own by the report; what failed has no latency."""
    record = recorded(SAMPLE)
    prices = {endpoint.name: endpoint for endpoint in SAMPLE.endpoints}

    def told(*reports: LoggedReport, completion: LoggedCompletion | None = None) -> list[float | None]:
        return list(seen(LoggedRequest(record, completion, reports), prices).values())

    assert told() == [None, None, None, None, None]
    assert told(judged(record, 0.0), judged(record, 0.75), completion=ended(record)) == [0.75, 0.001, 0.5, 2.0, 0.0]
    broken = ended(record, result=CompletionResult.BROKEN, endpoint_name=None)
    assert told(completion=broken) == [None, 0.001, None, None, 1.0]
    assert told(completion=ended(record, result=CompletionResult.LEFT)) == [None, 0.001, None, None, None]
    own = replace(judged(record, 1.0), ttft_s=0.25, duration_s=1.5, input_token_count=1000, output_token_count=500)
    assert told(own) == [1.0, (1000 * 1.0 + 500 * 2.0) / 1e6, 0.25, 1.5, 0.0]
    assert told(replace(own, failure=UpstreamErrorKind.TIMEOUT)) == [1.0, None, None, None, 1.0]


def test_costs_are_at_the_prices_of_the_other_router() -> None:
    """Where a price has changed the tokens are priced anew."""
    record = recorded(SAMPLE)
    cheaper = {LARGE: Endpoint("large", "north", 0.5, 1.0)}
    found = seen(LoggedRequest(record, ended(record)), cheaper)
    assert found[Outcome.COST] == pytest.approx((10 * 0.5 + 100 * 1.0) / 1e6)


def many(count: int, *, quality: float | None = 0.5, exploration: Exploration = WIDE) -> list[Record]:
    """A log of so many decisions, each served, and judged if a quality is given."""
    records: list[Record] = []
    for seed in range(count):
        record = recorded(SAMPLE._replace(decision_id=f"d-{seed}", seed=seed * 7919, exploration=exploration))
        records += [record, ended(record)]
        if quality is not None:
            records.append(judged(record, quality))
    return records


def test_a_log_with_support_raises_no_doubts(tmp_path: Path) -> None:
    """Where both endpoints were tried, in either's favour, the estimates stand; what is the same of both is estimated as
    the same."""
    found = replayed(tmp_path, many(600), "router@lowest-rc").comparison
    assert found is not None
    assert found.warnings == ("failed: only 0 of 600 outcomes are unlike the rest, too few for an interval",)
    assert found.estimates[Outcome.QUALITY].self_normalised.value == pytest.approx(0.5)
    assert found.support.unseen_share == 0.0
    assert 0 < found.same_choice_count < 600


def test_what_was_never_tried_is_doubted(tmp_path: Path) -> None:
    """A router that always chose one endpoint tells nothing of the other: the reasons are given in words."""
    found = replayed(tmp_path, many(30, quality=None, exploration=Exploration(0.0)), "router@lowest-rc").comparison
    assert found is not None
    text = "\n".join(found.warnings)
    assert f"100.0% of what the other router would choose could never be chosen by the one that ran ({SMALL})" in text
    assert "100.0% of the decisions could not have gone otherwise (propensity 1)" in text
    assert "cost_usd, ttft_s, duration_s, failed: what was seen is worth 0 decisions of the other router's own" in text
    assert "quality: none was reported" in text


def test_wrong_propensities_are_noticed(tmp_path: Path) -> None:
    """A log of which the decisions for one endpoint are missing has weights of a wrong mean."""
    records = [record for record in many(600, quality=None) if isinstance(record, LoggedDecision)]
    part = [record for record in records if record.decision.candidates[0].endpoint.name == LARGE]
    found = replayed(tmp_path, list(part), "router@lowest-rc").comparison
    assert found is not None
    assert any(warning.startswith("the weights have a mean of 0.000 in place of 1.000") for warning in found.warnings)


def test_one_sided_judging_is_noticed(tmp_path: Path) -> None:
    """Where only the answers of one endpoint are judged, quality is doubted."""
    records = many(300)
    kept = [record for record in records if not (isinstance(record, LoggedReport) and record.endpoint_name == LARGE)]
    found = replayed(tmp_path, kept, "router").comparison
    assert found is not None
    assert any(f"quality: answers of {SMALL} were judged in 100% of cases" in warning for warning in found.warnings)


def test_decisions_without_chance_are_left_out(tmp_path: Path) -> None:
    """Where the caller set the seed the choice tells nothing of what else might have been chosen."""
    records = [replace(r, caller_seeded=True) if isinstance(r, LoggedDecision) else r for r in many(3)]
    found = replayed(tmp_path, records, "router").comparison
    assert found is not None
    assert (found.support.caller_seeded_count, found.support.decision_count, found.estimates) == (3, 0, {})


def test_who_would_be_turned_away_is_left_out_and_counted(tmp_path: Path) -> None:
    """A router with a bound that nothing meets refuses every request, and there is nothing to estimate."""
    found = replayed(tmp_path, many(3), "router@q>0.99").comparison
    assert found is not None
    assert (found.support.refused_count, found.estimates) == (3, {})
    assert "no decision of the log can be weighed" in found.warnings[0]
