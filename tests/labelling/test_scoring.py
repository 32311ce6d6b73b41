"""Scoring an answer by comparison."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pointsman_server.labelling.scoring import (
    PATTERN_CHARACTER_COUNT_MAX,
    ChoiceMatch,
    ExactMatch,
    JsonMatch,
    NumberMatch,
    PatternMatch,
    RuleError,
    chosen_letter,
    equal_json,
    last_number,
    number_of,
)

texts = st.text(st.characters(codec="utf-8"))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)
prose = st.text("abc XYZ.,;:!?\n", max_size=40)
"""Text without digits, signs or braces."""


def tagged(value: object) -> object:
    """A value with its kind, so that Python's own equality tells 1 from true."""
    if isinstance(value, dict):
        return {key: tagged(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [tagged(inner) for inner in value]
    return (isinstance(value, bool), value)


class TestExact:
    """The answer is the expected text."""

    @given(texts, st.booleans(), st.booleans())
    def test_a_text_matches_itself(self, text: str, ignore_case: bool, ignore_space: bool) -> None:  # noqa: FBT001
        """Whatever the options, an answer that is the expected text is right."""
        rule = ExactMatch((text,), ignore_case=ignore_case, ignore_space=ignore_space)
        assert rule.score(text) == 1.0

    @given(st.lists(st.text("ab", min_size=1), min_size=1), st.lists(st.sampled_from([" ", "\n", "\t"]), min_size=1))
    def test_white_space_counts_only_when_it_is_to(self, words: list[str], blanks: list[str]) -> None:
        """Blanks at the ends and their number within don't count, unless ignore_space is off."""
        answer = "".join(blanks) + ("".join(blanks)).join(words) + "".join(blanks)
        assert ExactMatch((" ".join(words),)).score(answer) == 1.0
        assert ExactMatch((" ".join(words),), ignore_space=False).score(answer) == 0.0

    @given(st.text(st.characters(codec="ascii", categories=["Lu", "Ll"]), min_size=1))
    def test_case_counts_unless_it_is_not_to(self, text: str) -> None:
        """The other case is another text, unless ignore_case is on."""
        assert ExactMatch((text,)).score(text.swapcase()) == 0.0
        assert ExactMatch((text,), ignore_case=True).score(text.swapcase()) == 1.0

    def test_any_of_several_texts_is_right(self) -> None:
        """With several expected texts, one is enough."""
        rule = ExactMatch(("colour", "color"))
        assert [rule.score(answer) for answer in ("color", "colour", "hue")] == [1.0, 1.0, 0.0]


class TestPattern:
    """The answer has a match."""

    @given(texts.filter(bool), texts, texts)
    def test_a_match_may_stand_anywhere(self, needle: str, before: str, after: str) -> None:
        """A text that is looked for literally is found wherever it stands."""
        escaped = "".join(f"\\x{{{ord(character):x}}}" for character in needle)
        assert PatternMatch(escaped).score(before + needle + after) == 1.0

    def test_anchors_and_flags_mean_what_they_do_elsewhere(self) -> None:
        """^ and $ hold at the ends of the answer, (?i) overlooks case."""
        rule = PatternMatch("(?i)^paris[.]?$")
        assert [rule.score(answer) for answer in ("PARIS.", "In Paris", "Paris")] == [1.0, 0.0, 1.0]

    @pytest.mark.parametrize("pattern", ["(a+)+$", "^(a|a)*$", "(.*)*x", "(a?){50}a{50}$"])
    def test_a_pattern_that_would_hang_others_does_not(self, pattern: str) -> None:
        """What takes a backtracking engine longer than the universe lasts is answered; this test would never end."""
        assert PatternMatch(pattern).score("a" * 40_000 + "b") == 0.0

    @pytest.mark.parametrize(
        "pattern", ["(", "a{1,100000}", r"(a)\1", "(?=a)", "a" * (PATTERN_CHARACTER_COUNT_MAX + 1)]
    )
    def test_what_is_no_pattern_is_refused(self, pattern: str) -> None:
        """Faulty, oversized and unsupported patterns are an error before anything is asked."""
        with pytest.raises(RuleError, match="pattern"):
            PatternMatch(pattern)


class TestNumber:
    """The last number of the answer is the expected one."""

    @given(st.integers(-(10**12), 10**12), prose, prose)
    def test_the_last_number_counts(self, number: int, before: str, after: str) -> None:
        """Whatever stands around it, the last number is read, with thousands' commas or without."""
        for written in (str(number), f"{number:,}", f"{number}.0"):
            answer = f"{before} 7 and then {written} {after}"
            assert NumberMatch(Decimal(number)).score(answer) == 1.0
            assert NumberMatch(Decimal(number + 1)).score(answer) == 0.0

    @given(st.decimals(-(10**6), 10**6, places=3), st.floats(0.001, 0.5))
    def test_the_tolerance_is_relative(self, expected: Decimal, tolerance: float) -> None:
        """What is within the tolerance is right, what is beyond is not."""
        margin = abs(expected) * Decimal(repr(tolerance))
        rule = NumberMatch(expected, tolerance)
        assert rule.score(f"{expected + margin * Decimal('0.99'):f}") == 1.0
        assert rule.score(f"{expected + margin * Decimal('1.01') + Decimal('0.000001'):f}") == 0.0

    @pytest.mark.parametrize(
        ("answer", "number"),
        [
            ("It costs $1,234.50.", "1234.5"),
            ("x = -3", "-3"),
            ("\N{MINUS SIGN}3 degrees", "-3"),
            ("5-3", "3"),
            ("about 6.02e23", "6.02e23"),
            ("probability .25", "0.25"),
            ("**42**", "42"),
            ("50%", "50"),
            ("1, 2, 3", "3"),
            ("none", None),
            ("", None),
            ("9" * 200, None),
        ],
    )
    def test_numbers_are_read_as_people_write_them(self, answer: str, number: str | None) -> None:
        """Signs, commas, exponents, markdown and units."""
        found = last_number(answer)
        assert found == (None if number is None else Decimal(number))

    @given(texts)
    def test_any_answer_is_scored(self, answer: str) -> None:
        """No text makes scoring fail."""
        assert NumberMatch(Decimal(1)).score(answer) in {0.0, 1.0}

    @pytest.mark.parametrize("expected", [True, None, "seven", "", [1], "1e", "9" * 101])
    def test_what_is_no_number_is_refused(self, expected: object) -> None:
        """Anything but a number, or a text that is one, is an error."""
        with pytest.raises(RuleError):
            number_of(expected)

    def test_a_number_may_be_a_text(self) -> None:
        """Numbers and texts of numbers are the same."""
        assert [number_of(42), number_of("1,234.5"), number_of(0.1)] == [Decimal(42), Decimal("1234.5"), Decimal("0.1")]


class TestChoice:
    """The answer settles on a letter."""

    @given(
        st.sampled_from("ABCDEFGHIJ"), st.sampled_from(["{}", "({})", "{}.", "**{}**", " {} ", "\\boxed{{{}}}", '"{}"'])
    )
    def test_a_letter_alone_is_the_choice(self, letter: str, form: str) -> None:
        """With brackets, full stop, markdown or LaTeX, in either case."""
        assert ChoiceMatch(letter).score(form.format(letter)) == 1.0
        assert ChoiceMatch(letter).score(form.format(letter.lower())) == 1.0

    @pytest.mark.parametrize(
        ("answer", "letter"),
        [
            ("A is tempting, but the answer is C.", "C"),
            ("The answer is (B) because of D.", "B"),
            ("First I thought the answer is A. No: the correct answer is **D**.", "D"),
            ("Answer: $\\boxed{E}$", "E"),
            ("The answer is C. Option A fails because choice B does.", "C"),
            ("B) Paris", "B"),
            ("(C) Lyon, since A is wrong", "C"),
            ("D. 42", "D"),
            ("The answer is a matter of taste.", None),
            ("A long story.", None),
            ("I am not sure", None),
            ("", None),
        ],
    )
    def test_the_statement_counts(self, answer: str, letter: str | None) -> None:
        """The last statement of an answer goes before a letter at the start; prose is no choice."""
        assert chosen_letter(answer) == letter

    @given(texts)
    def test_any_answer_is_scored(self, answer: str) -> None:
        """No text makes scoring fail, and it settles on at most one of the letters."""
        assert sum(ChoiceMatch(letter).score(answer) for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ") <= 1.0


class TestJson:
    """The answer is JSON of the expected value."""

    @given(json_values, st.sampled_from(["{}", "```json\n{}\n```", "Here it is:\n```\n{}\n```\nDone.", "\n {} \n"]))
    def test_a_value_is_found_bare_or_fenced(self, value: object, form: str) -> None:
        """However it is indented, and with words around a fenced block."""
        for written in (json.dumps(value), json.dumps(value, indent=2)):
            assert JsonMatch(value).score(form.format(written) if "{}" in form else written) == 1.0

    @given(st.dictionaries(texts, json_values, min_size=2))
    def test_the_order_of_keys_does_not_count(self, value: dict[str, object]) -> None:
        """An object is the same with its keys turned round."""
        assert JsonMatch(value).score(json.dumps(dict(reversed(value.items())))) == 1.0

    @given(json_values, json_values)
    def test_other_values_are_other(self, left: object, right: object) -> None:
        """Two values are equal exactly when their kinds and contents are, all the way down."""
        assert equal_json(left, right) == (tagged(left) == tagged(right))
        assert equal_json([left, {"k": right}], [left, {"k": right}])

    @pytest.mark.parametrize(
        ("answer", "expected", "score"),
        [
            ('{"a": 1.0}', {"a": 1}, 1.0),
            ('{"a": true}', {"a": 1}, 0.0),
            ("1", True, 0.0),
            ("null", None, 1.0),
            ("[1, 2]", [2, 1], 0.0),
            ('{"a": 1, "b": 2}', {"a": 1}, 0.0),
            ('{"a": 1} and more', {"a": 1}, 0.0),
            ("NaN", None, 0.0),
            ("1e999", 1, 0.0),
            ("", None, 0.0),
            ("```json\n{}\n```\nor\n```json\n[]\n```", [], 1.0),
            ("[" * 100_000, [], 0.0),
        ],
    )
    def test_equality_is_that_of_json(self, answer: str, expected: object, score: float) -> None:
        """1 and 1.0 are the same, 1 and true are not; what is not JSON as a whole is wrong; the last fence counts."""
        assert JsonMatch(expected).score(answer) == score

    def test_deep_values_are_compared(self) -> None:
        """Values nest as deep as the parser goes."""
        deep: object = 1
        for _ in range(50_000):
            deep = [deep]
        assert equal_json(deep, deep)
