"""Reading the prompt file, and finding what is wrong with it."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from pointsman_server.chat import Role
from pointsman_server.labelling.errors import SHOWN_FAULT_COUNT_MAX, PromptFileError
from pointsman_server.labelling.prompts import LabelledPrompt, ScoringDefaults, read_prompts
from pointsman_server.labelling.scoring import (
    ChoiceMatch,
    Compared,
    ExactMatch,
    JsonMatch,
    Judged,
    Method,
    NumberMatch,
    Rule,
)

GOOD: dict[str, Any] = {"prompt_id": "a", "prompt": "One?", "score": "exact", "expected": "1"}


def read(*lines: dict[str, Any] | str, defaults: ScoringDefaults | None = None) -> tuple[LabelledPrompt, ...]:
    """The prompts of a file with these lines."""
    written = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    return read_prompts(written, source="prompts.jsonl", defaults=defaults or ScoringDefaults())


def faults(*lines: dict[str, Any] | str, defaults: ScoringDefaults | None = None) -> list[tuple[int, str]]:
    """What is wrong with such a file."""
    with pytest.raises(PromptFileError) as caught:
        read(*lines, defaults=defaults)
    return [(fault.line_number, fault.description) for fault in caught.value.faults]


class TestRead:
    """Good files."""

    @pytest.mark.parametrize(
        ("line", "rule"),
        [
            ({"score": "exact", "expected": "1"}, ExactMatch(("1",))),
            (
                {"score": "exact", "expected": ["1", "one"], "ignore_case": True, "ignore_space": False},
                ExactMatch(("1", "one"), ignore_case=True, ignore_space=False),
            ),
            ({"score": "number", "expected": 1.5, "tolerance": 0.1}, NumberMatch(Decimal("1.5"), 0.1)),
            ({"score": "choice", "expected": "b"}, ChoiceMatch("B")),
            ({"score": "json", "expected": {"a": [1]}}, JsonMatch({"a": [1]})),
            ({"score": "json", "expected": None}, JsonMatch(None)),
            ({"score": "judge"}, Judged(None)),
            ({"score": "judge", "expected": "Two."}, Judged("Two.")),
            ({"score": "pairwise"}, Compared(None)),
            ({"score": "pairwise", "baseline": "Two."}, Compared("Two.")),
        ],
    )
    def test_each_way_of_scoring_has_its_rule(self, line: dict[str, Any], rule: Rule) -> None:
        """What stands in the line is what is compared with."""
        defaults = ScoringDefaults(has_judge=True, has_baseline=True)
        (prompt,) = read({"prompt_id": "a", "prompt": "One?"} | line, defaults=defaults)
        assert prompt.rule == rule

    def test_a_pattern_is_compiled(self) -> None:
        """A regular expression scores as it says."""
        (prompt,) = read(GOOD | {"score": "regex", "expected": "^1$"})
        assert not isinstance(prompt.rule, Judged | Compared)
        assert [prompt.rule.score("1"), prompt.rule.score("11")] == [1.0, 0.0]

    def test_flags_hold_for_lines_that_say_nothing(self) -> None:
        """The way of scoring and ignore_case come from the caller, unless the line has its own."""
        silent = {"prompt_id": "a", "prompt": "One?", "expected": "A"}
        own = silent | {"prompt_id": "b", "score": "number", "expected": 7}
        defaults = ScoringDefaults(method=Method.EXACT, ignore_case=True)
        rules = [prompt.rule for prompt in read(silent, own, defaults=defaults)]
        assert rules == [ExactMatch(("A",), ignore_case=True), NumberMatch(Decimal(7))]

    def test_a_conversation_is_taken_turn_by_turn(self) -> None:
        """Messages keep their roles; the quality model's text is the last user turn after the system text."""
        turns = [("system", "Be brief."), ("user", "Hi"), ("assistant", "Hello"), ("user", "One?")]
        messages = [{"role": role, "content": content} for role, content in turns]
        (prompt,) = read({"prompt_id": "a", "messages": messages, "score": "exact", "expected": "1"})
        roles = [message.role for message in prompt.messages]
        assert roles == [Role.SYSTEM, Role.USER, Role.ASSISTANT, Role.USER]
        assert prompt.text == "Be brief.\nOne?"

    def test_blank_lines_and_other_keys_are_passed_over(self) -> None:
        """They mean nothing here; lines are counted with them."""
        prompts = read("", GOOD | {"author": "me"}, "  ", GOOD | {"prompt_id": "b"})
        assert [(prompt.prompt_id, prompt.line_number) for prompt in prompts] == [("a", 2), ("b", 4)]

    def test_no_prompt_reaches_a_repr(self) -> None:
        """What a prompt is printed as holds neither its text nor what is expected."""
        (prompt,) = read(GOOD | {"prompt": "a secret question", "expected": "a secret answer"})
        assert "secret" not in repr(prompt)


class TestFaults:
    """Bad files: each fault has its line, and says what would be right."""

    @pytest.mark.parametrize(
        ("line", "description"),
        [
            ("{", "is not JSON"),
            ('{"prompt_id": NaN}', "is not JSON"),
            ("[]", "is not a JSON object"),
            ('{"prompt": "\\ud800"}', "holds half of a surrogate pair, which is no character"),
            (GOOD | {"prompt_id": None}, "prompt_id must be a text of 1 to 200 characters"),
            (GOOD | {"prompt_id": 7}, "prompt_id must be a text"),
            (GOOD | {"prompt_id": "x" * 201}, "prompt_id must be a text of 1 to 200 characters"),
            (GOOD | {"prompt": ""}, "prompt must be a text that is not empty"),
            (GOOD | {"messages": []}, "must have either prompt or messages"),
            ({"prompt_id": "a"}, "must have either prompt or messages"),
            ({"prompt_id": "a", "messages": []}, "messages must be a list of 1 to 1,000 turns"),
            (
                {"prompt_id": "a", "messages": [{"role": "user", "content": "x"}, {"role": "tool", "content": "x"}]},
                "messages[1] must have a role (system, user, assistant) and as content a text that is not empty",
            ),
            (
                {"prompt_id": "a", "messages": [{"role": "assistant", "content": "x"}]},
                "the last of messages must be the user's, which is what is answered",
            ),
            (GOOD | {"split": "dev"}, "split must be one of train, val, test"),
            (GOOD | {"category": 7}, "category must be a text"),
            (
                GOOD | {"score": "eact"},
                f"score must be one of {', '.join(Method)}",
            ),
            (
                {"prompt_id": "a", "prompt": "One?"},
                f"does not say how it is scored: add score (one of {', '.join(Method)}), or give --score",
            ),
            (
                {"prompt_id": "a", "prompt": "One?", "score": "exact"},
                "expected is missing, which exact compares the answer with",
            ),
            (GOOD | {"expected": 1}, "expected must be a text, or a list of 1 to 100 texts of which any is right"),
            (GOOD | {"ignore_case": "yes"}, "ignore_case must be true or false"),
            (GOOD | {"score": "number", "expected": "x"}, 'expected must be a number, such as 42 or "1,234.5"'),
            (
                GOOD | {"score": "number", "expected": 1, "tolerance": -1},
                "tolerance must be a number from 0 to 1, relative to the expected one",
            ),
            (GOOD | {"score": "choice", "expected": "AB"}, "expected must be the letter of the right choice, A to Z"),
            (
                GOOD | {"score": "regex", "expected": "("},
                "the pattern is not one in RE2's syntax: missing ): (",
            ),
            (GOOD | {"score": "judge"}, "is scored by judge, but there is no judge: give --judge ENDPOINT"),
        ],
    )
    def test_a_bad_line_is_named(self, line: dict[str, Any] | str, description: str) -> None:
        """The line, what is wrong and what would be right."""
        assert faults(GOOD | {"prompt_id": "first"}, line) == [(2, description)]

    def test_a_comparison_needs_something_to_compare_with(self) -> None:
        """Without a baseline in the line or an endpoint for it there is none."""
        found = faults(GOOD | {"score": "pairwise"}, defaults=ScoringDefaults(has_judge=True))
        assert found == [(1, "has no baseline to compare with: add baseline (an answer), or give --baseline ENDPOINT")]

    def test_all_faults_are_listed(self) -> None:
        """Every line is read, whatever is wrong with those before; the text shows the first twenty."""
        lines = ["{"] * (SHOWN_FAULT_COUNT_MAX + 3)
        with pytest.raises(PromptFileError) as caught:
            read(*lines)
        assert len(caught.value.faults) == len(lines)
        shown = str(caught.value).split("\n")
        assert shown[:2] == ["prompts.jsonl is not valid:", "  line 1: is not JSON"]
        assert shown[-1] == "  and 3 more"

    def test_a_prompt_id_stands_once(self) -> None:
        """The second line with it is at fault, and names the first."""
        assert faults(GOOD, GOOD) == [(2, "prompt_id 'a' is that of line 1 already")]

    def test_all_prompts_have_a_split_or_none(self) -> None:
        """Training takes one of every prompt or makes its own."""
        found = faults(GOOD | {"split": "train"}, GOOD | {"prompt_id": "b"})
        assert found == [(2, "has no split, while line 1 has one: give one to all or to none")]

    def test_an_empty_file_is_one(self) -> None:
        """A file of blank lines holds no prompt."""
        assert faults("", "\n") == [(1, "the file holds no prompt")]
