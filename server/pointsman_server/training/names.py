"""Which of an artifact's models is meant by a name that somebody wrote, in a data set or on a command line.

A name is tried as a source and a model that the artifact was trained on, then as such a model alone, then as one of the
names under which the artifact's models are known, vendor and case aside.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches

from pointsman_server.errors import PointsmanError
from pointsman_server.quality.model import QualityModel, normalised

NEAR_NAME_COUNT = 3
"""Names that are offered in place of one that is not known."""
NEARNESS_MIN = 0.5
"""How alike two names are, by difflib's ratio, to be taken for each other."""


class UnknownModelError(PointsmanError):
    """The artifact knows no such model; the text offers what it knows."""


@dataclass(frozen=True, slots=True)
class ModelNames:
    """The names of an artifact's models."""

    by_endpoint: Mapping[tuple[str, str], str]
    """(source, model) as trained on, to the name that `QualityModel.predict` takes."""
    by_model: Mapping[str, frozenset[str]]
    """The model alone, exactly as trained on, to all such names: one LLM in several sources can be several models."""
    known: frozenset[str]
    """Every name that `QualityModel.predict` takes, normalised."""

    @classmethod
    def of(cls, model: QualityModel) -> ModelNames:
        """The names that lead to the profiles of this model."""
        by_endpoint = {endpoint: profile.model for profile in model.profiles for endpoint in profile.endpoints}
        by_model: dict[str, set[str]] = {}
        for (_, name), profile_name in by_endpoint.items():
            by_model.setdefault(name, set()).add(profile_name)
        return cls(by_endpoint, {name: frozenset(found) for name, found in by_model.items()}, model.models)

    def of_endpoint(self, endpoint: tuple[str, str]) -> str | None:
        """The model that an endpoint of a data set is, None where the artifact does not know it."""
        trained = self.by_endpoint.get(endpoint)
        return trained if trained is not None else self._of_model(endpoint[1])

    def of_text(self, text: str) -> str:
        """The model that is meant by `MODEL`, or by `SOURCE/MODEL` where several sources have one of that name.

        Raises:
            UnknownModelError: no model, or more than one, is called that.
        """
        source, _, model = text.partition("/")
        found = self.by_endpoint.get((source, model)) or self._of_model(text)
        if found is not None:
            return found
        if len(self.by_model.get(text, ())) > 1:
            sources = sorted(f"{source}/{name}" for source, name in self.by_endpoint if name == text)
            raise UnknownModelError(f"{text} was trained on in several sources; say which: {', '.join(sources)}")
        raise UnknownModelError(f"the artifact does not know {text}{near(text, self._all())}")

    def _of_model(self, model: str) -> str | None:
        trained = self.by_model.get(model, frozenset())
        if len(trained) == 1:
            return next(iter(trained))
        name = normalised(model)
        return name if name in self.known else None

    def _all(self) -> set[str]:
        return {*self.by_model, *self.known}


def near(text: str, names: Iterable[str]) -> str:
    """The names most like a wrong one, as the end of a sentence; of none alike, how many there are."""
    by_plain = {normalised(name): name for name in sorted(names)}
    found = get_close_matches(normalised(text), by_plain, n=NEAR_NAME_COUNT, cutoff=NEARNESS_MIN)
    if found:
        return f"; near it: {', '.join(by_plain[name] for name in found)}"
    return f"; it knows {', '.join(sorted(by_plain.values())[:NEAR_NAME_COUNT])} and {max(0, len(by_plain) - 3)} more"
