"""What of somebody's own data is trained on, and how what comes out is called."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from pointsman_server.quality.model import QualityModel
from pointsman_server.training.build import SETTINGS
from pointsman_server.training.dataset import Dataset, DatasetError
from pointsman_server.training.own import Selection, card_of, provenance_of, selected, settings_for, version_of
from pointsman_server.training.train import TrainingSettings

COUNT = 40


@pytest.fixture
def two_sources(small_world: Dataset) -> Dataset:
    """Forty prompts of two sources that share some questions; every tenth is for evaluation only."""
    numbers = np.arange(COUNT)
    part = small_world.where(np.arange(len(small_world.texts)) < COUNT)
    quality = np.hstack(
        [np.where((numbers % 2 == side)[:, np.newaxis], part.quality, np.nan) for side in range(2)]
    ).astype(np.float32)
    return replace(
        part,
        sources=np.where(numbers % 2 == 0, "main", "side").astype(object),
        dedupe_keys=np.array([f"q{number // 2 if number < 8 else number}" for number in numbers], dtype=object),
        tags=np.where(numbers % 10 == 0, "eval_only", "").astype(object),
        splits=np.full(COUNT, "train", dtype=object),
        endpoints=tuple((source, model) for source in ("main", "side") for _, model in part.endpoints),
        quality=quality,
        cost_usd=np.full_like(quality, np.nan),
        input_tokens=np.full_like(quality, np.nan),
        output_tokens=np.full_like(quality, np.nan),
        latency_s=np.full_like(quality, np.nan),
    )


class TestSelected:
    """The part that is trained on."""

    def test_everything_but_what_is_for_evaluation_only(self, two_sources: Dataset) -> None:
        """Unless sources are named, all count; what is tagged eval_only never does."""
        found = selected(two_sources, Selection())
        assert len(found.texts) == COUNT - COUNT // 10
        assert set(found.sources) == {"main", "side"}
        assert not found.tagged("eval_only").any()

    def test_sources_are_chosen(self, two_sources: Dataset) -> None:
        """Of a source that is named there are prompts and endpoints, of another there are none."""
        found = selected(two_sources, Selection(sources=("side",)))
        assert set(found.sources) == {"side"}
        assert {source for source, _ in found.endpoints} == {"side"}

    def test_no_question_of_a_yardstick_is_left(self, two_sources: Dataset) -> None:
        """Neither the yardstick itself nor a question that another source shares with it is trained on."""
        yardstick = set(two_sources.from_sources(["side"]).dedupe_keys)
        found = selected(two_sources, Selection(yardsticks=("side",)))
        assert set(found.sources) == {"main"}
        assert not yardstick & set(found.dedupe_keys)
        assert len(found.texts) < (two_sources.sources == "main").sum()
        assert {source for source, _ in found.endpoints} == {"main"}

    @pytest.mark.parametrize("selection", [Selection(sources=("man",)), Selection(yardsticks=("man",))])
    def test_a_source_that_is_not_there_is_told(self, two_sources: Dataset, selection: Selection) -> None:
        """A misspelt source is not taken for none."""
        with pytest.raises(DatasetError) as caught:
            selected(two_sources, selection)
        assert str(caught.value) == "the data has no source man; it has main, side"


class TestVersion:
    """What decides what comes out."""

    def test_whatever_changes_the_model_changes_the_version(self, two_sources: Dataset) -> None:
        """Another seed, setting, label, prompt, split or endpoint is another version; the same is the same."""
        settings = TrainingSettings()
        quality = two_sources.quality.copy()
        quality[0, 0] = 0.125
        texts = two_sources.texts.copy()
        texts[3] = "another"
        splits = two_sources.splits.copy()
        splits[0] = "val"
        versions = [
            version_of(two_sources, settings, seed=1),
            version_of(two_sources, settings, seed=2),
            version_of(two_sources, replace(settings, latent_count=3), seed=1),
            version_of(replace(two_sources, quality=quality), settings, seed=1),
            version_of(replace(two_sources, texts=texts), settings, seed=1),
            version_of(replace(two_sources, splits=splits), settings, seed=1),
            version_of(replace(two_sources, endpoints=two_sources.endpoints[::-1]), settings, seed=1),
        ]
        assert len(set(versions)) == len(versions)
        assert version_of(two_sources, settings, seed=1) == versions[0]


def test_several_sources_are_tied_together(two_sources: Dataset) -> None:
    """One source speaks for itself; where several meet, the settings of the shipped model hold."""
    assert settings_for(two_sources) == SETTINGS
    assert settings_for(two_sources.from_sources(["main"])) == TrainingSettings()


def test_the_card_tells_what_the_manifest_tells(two_sources: Dataset, small_model: QualityModel) -> None:
    """Sources with their size and metrics with their source stand on the card."""
    provenance = provenance_of(two_sources, seed=4, created="2026-01-02", metrics={"main": {"brier": 0.125}})
    card = card_of(small_model, provenance)
    assert "- main: trained: 20 prompts" in card
    assert "| main | brier | 0.125 |" in card
    assert provenance.settings["seed"] == 4
    assert provenance.settings["booster.depth"] == SETTINGS.booster.depth
