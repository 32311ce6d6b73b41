"""What failures will cost the next call: odds that rise within a few calls, and fall again within half a minute.

The share of failures is taken for one of two: what is usual here, or that of a bad spell that has just begun. Each
call's end is evidence for the one or the other, summed up since it last spoke for the usual share (Page 1954). So a
single failure among many successes costs little, two among a handful much, and a minute of good calls before them does
not hide them, as it would in a mean.
"""

from __future__ import annotations

import math

SPELL_SHARE = 0.4
"""Share of failures in a bad spell: from a third on an endpoint is worse than none, and most spells are far beyond."""
SPELL_SHARE_CALL_COUNT = 4.0
"""Calls that this is worth beside what is seen of the spell."""
SPELL_SURPRISE = 4.0
"""Evidence of even chances: a spell begins about every 50 calls that fail or look like it."""
SPELL_EVIDENCE_MAX = 7.0
"""Beyond this nothing is gained but a longer way back: a dozen good calls outweigh it."""
SPELL_HALF_LIFE_S = 15.0
"""Evidence halves in so much time: an endpoint that everybody left is worth another look within half a minute."""
USUAL_SHARE_MIN = 0.02
USUAL_SHARE_MAX = 0.3
"""Bounds of the usual share as evidence is weighed: no provider is so good that a single failure would be proof, and one
that always fails is no usual one."""
USUAL_GAIN = 0.02
USUAL_PRIOR_COUNT = 5.0
"""The usual share is that of the last 50 calls, and starts as if five had gone well,"""
USUAL_HALF_LIFE_S = 300.0
"""and of minutes, where calls are rare."""
SHARE_MAX = 0.9
"""Odds of nine to one; beyond that the breaker is open."""
RETRIED_ODDS = 0.2
"""Failures for each success that may be tried again unseen (`execution.budgets.RETRY_SHARE`); what fails beyond that, a
caller sees,"""
SEEN_S = 10.0
"""which costs as much as so many seconds: to notice it, to ask again. An assumption. An endpoint that fails so often is left
where another is nearly as good, and yet used where all others are worse by that: to do without it would cost more."""
COST_GAIN = 0.2
"""What a failure costs is the mean of the last five: a timeout now says more than a refusal an hour ago."""


class FailureOdds:
    """How likely the next call of one endpoint fails, and what that costs. A few numbers."""

    __slots__ = ("_call_count", "_cost_s", "_evidence", "_failure_count", "_known_count", "_seen_s", "_usual")

    def __init__(self) -> None:
        self._usual = 0.0
        self._evidence = 0.0
        # Since the evidence was last nil.
        self._failure_count = 0
        self._call_count = 0
        self._cost_s = 0.0
        self._known_count = 0
        self._seen_s = 0.0

    def add_success(self, *, now_s: float) -> None:
        """A call succeeded."""
        self._add(failed=False, now_s=now_s)

    def add_failure(self, *, lost_s: float, now_s: float) -> None:
        """A call failed and cost `lost_s`."""
        self._cost_s += (COST_GAIN if self._cost_s > 0.0 else 1.0) * (lost_s - self._cost_s)
        self._add(failed=True, now_s=now_s)

    def cost_s(self, now_s: float) -> float:
        """Seconds that failures cost a call before it succeeds, to be expected at `now_s`: odds times what one costs, and
        `SEEN_S` for those that are more than may be tried again."""
        if self._cost_s == 0.0:
            return 0.0
        elapsed_s = max(0.0, now_s - self._seen_s)
        usual = self._usual * _halved(elapsed_s / USUAL_HALF_LIFE_S)
        evidence = self._evidence * _halved(elapsed_s / SPELL_HALF_LIFE_S)
        seen = self._failure_count + SPELL_SHARE * SPELL_SHARE_CALL_COUNT
        spell = max(usual, seen / (self._call_count + SPELL_SHARE_CALL_COUNT))
        share = min(SHARE_MAX, usual + _chance(evidence) * (spell - usual))
        odds = share / (1.0 - share)
        return self._cost_s * odds + SEEN_S * max(0.0, odds - RETRIED_ODDS)

    def _add(self, *, failed: bool, now_s: float) -> None:
        elapsed_s = max(0.0, now_s - self._seen_s)
        self._seen_s = max(self._seen_s, now_s)
        self._usual *= _halved(elapsed_s / USUAL_HALF_LIFE_S)
        usual = max(USUAL_SHARE_MIN, min(USUAL_SHARE_MAX, self._usual))
        odds = SPELL_SHARE / usual if failed else (1.0 - SPELL_SHARE) / (1.0 - usual)
        evidence = self._evidence * _halved(elapsed_s / SPELL_HALF_LIFE_S) + math.log(odds)
        if evidence <= 0.0:
            self._evidence, self._failure_count, self._call_count = 0.0, 0, 0
        else:
            self._evidence = min(SPELL_EVIDENCE_MAX, evidence)
            self._failure_count += failed
            self._call_count += 1
        self._known_count += 1
        # What belongs to a spell says nothing of what is usual: else a spell that is over would be held against it for
        # as many good calls as that remembers, which nobody would make.
        gain = max(USUAL_GAIN, 1.0 / (self._known_count + USUAL_PRIOR_COUNT))
        self._usual += gain * (1.0 - _chance(self._evidence)) * (failed - self._usual)


def _chance(evidence: float) -> float:
    """That there is a spell. Without evidence there is none, whatever its chance were at the start of one."""
    return (1.0 - _halved(evidence)) / (1.0 + math.exp(SPELL_SURPRISE - evidence))


def _halved(half_life_count: float) -> float:
    """What is left of one after so many half-lives."""
    return math.exp2(-half_life_count)
