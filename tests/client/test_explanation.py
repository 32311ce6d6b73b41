"""A decision as text."""

from __future__ import annotations

import pointsman
from client.samples import DECISION, SPLIT_DECISION
from pointsman.v1.routing_pb2 import (
    Assignment,
    Candidate,
    Decision,
    DecisionReason,
    Rejection,
    RejectionReason,
)

_EXPECTED = """\
small@north: it ranks first (router default 7c1e, quality by builtin@1.0, 12 input tokens, last observed 1.5 s ago)
rank  endpoint     quality           cost       ttft p50/p95  itl     utility  chance
1     small@north  0.74 (0.61-0.85)  $0.000210  210/480 ms    8.4 ms  0.7312   90%
2     large@south  0.91 (0.84-0.96)  $0.0123    ?             ?       0.6987   10%
-     large@west   bound violated: time-to-first-token.p95<500 (812 ms)"""


def test_a_decision_explains_itself() -> None:
    """The text has the choice with its reason, what each candidate would give, and why the others are out."""
    assert pointsman.explain(DECISION) == _EXPECTED


def test_no_choice_explains_itself() -> None:
    """Where nothing is eligible, the text says so, with each reason."""
    nothing = Decision(
        router="default",
        router_version="7c1e",
        candidates=[
            Candidate(
                endpoint="a@p",
                rejections=[
                    Rejection(reason=RejectionReason.REJECTION_REASON_SKIPPED),
                    Rejection(reason=RejectionReason.REJECTION_REASON_UNKNOWN_VALUE, constraint="error-rate<0.1"),
                ],
            )
        ],
    )
    first, *_, last = pointsman.explain(nothing).splitlines()
    assert first == "no endpoint is eligible (router default 7c1e)"
    assert last == "-     a@p       to be skipped; value unknown: error-rate<0.1"


def test_a_split_and_its_shadows_are_told() -> None:
    """The headline says by which share of which split the router decided, and each shadow's choice has a line."""
    first, *_, last = pointsman.explain(SPLIT_DECISION).splitlines()
    assert "(router default 7c1e, 90% of its own split, quality by builtin@1.0," in first
    assert last == "shadow cheap 55d0: large@south, at quality 0.91 and cost $0.0123"
    other = Decision(router="cheap", assignment=Assignment(asked_router="default", probability=0.1))
    other.shadows.add(router="default", endpoint="a@p")
    other.endpoint = "a@p"
    text = pointsman.explain(other)
    assert "(router cheap , 10% of default's split," in text
    assert text.endswith("shadow default : the same, at quality ? and cost ?")
    del other.shadows[:]
    other.shadows.add(router="default", router_version="7c1e")
    assert pointsman.explain(other).endswith("shadow default 7c1e: no endpoint is eligible")


def test_a_risk_that_is_too_high_is_told() -> None:
    """A candidate that would fall short too often is shown with how often that is, or that it is more than is told."""
    reason = RejectionReason.REJECTION_REASON_RISK_TOO_HIGH
    rejections = [Rejection(reason=reason, constraint="rq.p95>=0.9", actual=risk) for risk in (0.13, 1.0)]
    assert pointsman.explain(Decision(candidates=[Candidate(endpoint="a@p", rejections=rejections)])).endswith(
        "falls short of the best too often: rq.p95>=0.9 (risk 13%); "
        "falls short of the best too often: rq.p95>=0.9 (risk above 50%)"
    )


def test_every_reason_has_words() -> None:
    """Every reason of the contract is put into words, and one from a newer server does not disturb."""
    for reason in set(DecisionReason.values()) - {DecisionReason.DECISION_REASON_UNSPECIFIED}:
        assert "unknown" not in pointsman.explain(Decision(endpoint="a@p", reason=reason))
    for rejection in set(RejectionReason.values()) - {RejectionReason.REJECTION_REASON_UNSPECIFIED}:
        out = Candidate(endpoint="a@p", rejections=[Rejection(reason=rejection)])
        assert "unknown reason" not in pointsman.explain(Decision(candidates=[out]))
    assert "unknown reason" in pointsman.explain(Decision(endpoint="a@p"))


def test_small_numbers_do_not_look_like_none() -> None:
    """A small chance is not shown as no chance, a small cost not as no cost, and what was never observed as that."""
    text = pointsman.explain(
        Decision(
            endpoint="a@p",
            candidates=[
                Candidate(endpoint="a@p", probability=0.996, cost_usd=0.0000123),
                Candidate(endpoint="b@p", probability=0.004, cost_usd=0.0),
                Candidate(endpoint="c@p"),
            ],
        )
    )
    first, _, a, b, c = (line.split() for line in text.splitlines())
    assert first[-2:] == ["never", "observed)"]
    assert (a[3], a[-1]) == ("$0.0000123", "100%")
    assert (b[3], b[-1]) == ("$0.00", "<1%")
    assert (c[3], c[-1]) == ("?", "0%")
