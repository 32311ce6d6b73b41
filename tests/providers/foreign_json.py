"""JSON as a provider might send it by mistake or malice: of the right names and of any type."""

from __future__ import annotations

from collections.abc import Mapping

from hypothesis import strategies as st

ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=4,
)


def shaped(fields: Mapping[str, st.SearchStrategy[object]]) -> st.SearchStrategy[object]:
    """An object with some of these fields, each as it should be or anything; or anything at all."""
    return ANY_JSON | st.fixed_dictionaries({}, optional={name: value | ANY_JSON for name, value in fields.items()})


def listed(item: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    """A short array of these."""
    return st.lists(item, max_size=3)


def words(*values: str) -> st.SearchStrategy[object]:
    """One of these texts."""
    return st.sampled_from(values)
