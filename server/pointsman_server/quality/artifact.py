"""A quality model on disk: a directory of plain files with a manifest that names, sizes and checksums each of them.

    manifest.json        schema, name, version, date, sources and licences, settings, metrics, checksum of every file
    booster.ubj          the vector-leaf booster, in XGBoost's own portable format
    tensors.safetensors  word table, profile weights and covariances, table of risks, what models join by
    vocabulary.json      the words of the word table, one per row
    profiles.json        which names lead to which profile
    MODEL_CARD.md        the manifest for people, and what the model is good and not good for

No file is executed or unpickled. Loading reads nothing else and refuses what does not match, with the reason.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xgboost
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from pointsman_server.decision.risk import RiskTable
from pointsman_server.errors import ArtifactError
from pointsman_server.quality.features import FeatureExtractor, Window, WordTable
from pointsman_server.quality.joining import Joining
from pointsman_server.quality.model import IntervalCalibration, Profile, ProfileTable, QualityModel
from pointsman_server.quality.ngrams import NgramTable

SCHEMA_VERSION = 3
"""Raised when a reader of the previous schema would misread the files."""

MANIFEST_FILE = "manifest.json"
BOOSTER_FILE = "booster.ubj"
TENSORS_FILE = "tensors.safetensors"
PROFILES_FILE = "profiles.json"
VOCABULARY_FILE = "vocabulary.json"
CARD_FILE = "MODEL_CARD.md"
CONTENT_FILES = frozenset({BOOSTER_FILE, TENSORS_FILE, PROFILES_FILE, VOCABULARY_FILE, CARD_FILE})
"""Every file besides the manifest."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where training data or an embedded component comes from."""

    name: str
    licence: str
    use: str


@dataclass(frozen=True, slots=True)
class Joined:
    """An LLM that has joined by its own labels after the artifact was built."""

    model: str
    created: str
    """ISO date."""
    label_count: int
    length_count: int
    """Labels that came with the length of the answer."""
    relative: str | None
    """The model from whose profile it started; None started from what is common to all."""
    joined_version: str
    """Of the artifact that it joined."""


@dataclass(frozen=True, slots=True)
class Provenance:
    """What the manifest tells beyond the model itself. All of it plain JSON values."""

    created: str
    """ISO date of the build."""
    sources: tuple[Source, ...]
    settings: Mapping[str, float | int | str]
    metrics: Mapping[str, Mapping[str, float]]
    """By group of held-out prompts, then by name of the metric."""
    packages: Mapping[str, str]
    """Versions of the packages that took part in training."""
    joined: tuple[Joined, ...] = ()
    """In the order in which they joined."""


def builtin_artifact_path() -> Path:
    """The artifact that ships inside the package."""
    return Path(__file__).parent / "builtin"


def save(path: Path, model: QualityModel, provenance: Provenance, *, card: str) -> None:
    """Write `model` to the directory `path`, which is created; files of an earlier artifact there are replaced."""
    path.mkdir(parents=True, exist_ok=True)
    contents = {
        BOOSTER_FILE: bytes(model.booster.save_raw("ubj")),
        TENSORS_FILE: save_tensors(_tensors(model)),
        PROFILES_FILE: _json_bytes([_profile_json(profile) for profile in model.profiles]),
        VOCABULARY_FILE: _json_bytes(list(model.features.table.words), indent=0),
        CARD_FILE: card.encode("utf-8"),
    }
    for name, content in contents.items():
        (path / name).write_bytes(content)
    (path / MANIFEST_FILE).write_bytes(_json_bytes(_manifest(model, provenance, contents)))


def load(path: Path) -> QualityModel:
    """The model in the directory `path`.

    Raises:
        ArtifactError: the directory is missing, incomplete, changed since it was written, or of another schema; the
            text says which file, what is wrong and what would be right.
    """
    manifest = read_manifest(path)
    contents = _verified_contents(path, manifest)
    try:
        model = _model(manifest, contents)
        names = manifest["features"]["names"]
    except ArtifactError as error:
        raise ArtifactError(f"{path}: {BOOSTER_FILE}: {error}") from error
    except (KeyError, TypeError, ValueError, AssertionError, SafetensorError, xgboost.core.XGBoostError) as error:
        raise ArtifactError(
            f"{path}: the files match their checksums but do not form a model ({type(error).__name__}); "
            "rebuild the artifact with the same version of pointsman that loads it"
        ) from error
    if names != list(model.features.names):
        raise ArtifactError(
            f"{path}: the artifact was built for other features than this version of pointsman reads; "
            "rebuild it or install the version that wrote it"
        )
    return model


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of the artifact in `path`, its schema checked.

    Raises:
        ArtifactError: there is none, it is not JSON, or it is of another schema.
    """
    try:
        raw = (path / MANIFEST_FILE).read_bytes()
    except OSError as error:
        raise ArtifactError(
            f"{path}: {MANIFEST_FILE} can't be read; an artifact is a directory that contains it"
        ) from error
    try:
        manifest = json.loads(raw)
    except ValueError as error:
        raise ArtifactError(f"{path}: {MANIFEST_FILE} is not valid JSON; restore or rebuild the artifact") from error
    schema = manifest.get("schema_version") if isinstance(manifest, dict) else None
    if schema != SCHEMA_VERSION:
        raise ArtifactError(
            f"{path}: schema version is {schema}, this version of pointsman reads {SCHEMA_VERSION}; "
            "rebuild the artifact or install the version that wrote it"
        )
    return dict(manifest)


def read_provenance(path: Path) -> Provenance:
    """What the manifest of an artifact that loads tells beyond the model itself.

    Raises:
        ArtifactError: there is no manifest, or it is not what it should be.
    """
    manifest = read_manifest(path)
    try:
        return Provenance(
            created=manifest["created"],
            sources=tuple(Source(**source) for source in manifest["sources"]),
            settings=manifest["settings"],
            metrics=manifest["metrics"],
            packages=manifest["packages"],
            joined=tuple(Joined(**joined) for joined in manifest["joined"]),
        )
    except (KeyError, TypeError) as error:
        raise ArtifactError(f"{path}: {MANIFEST_FILE} lacks what tells where the artifact comes from") from error


def read_benchmarks(path: Path) -> tuple[str, ...]:
    """The benchmarks whose scores the artifact in `path` knows how to read, without loading it.

    Raises:
        ArtifactError: there is no manifest, or it is not what it should be.
    """
    names = read_manifest(path).get("benchmarks")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ArtifactError(f"{path}: {MANIFEST_FILE} must list the benchmarks by which models join")
    return tuple(names)


def _verified_contents(path: Path, manifest: Mapping[str, Any]) -> dict[str, bytes]:
    """The bytes of every file, each checked against its checksum; no more and no fewer files than there should be."""
    listed = manifest.get("files")
    if not isinstance(listed, dict) or set(listed) != CONTENT_FILES:
        raise ArtifactError(f"{path}: {MANIFEST_FILE} must list exactly the files {', '.join(sorted(CONTENT_FILES))}")
    unknown = sorted({entry.name for entry in path.iterdir()} - CONTENT_FILES - {MANIFEST_FILE})
    if unknown:
        raise ArtifactError(f"{path}: unknown file {unknown[0]}; an artifact holds only what its manifest lists")
    contents = {}
    for name in sorted(listed):
        try:
            contents[name] = (path / name).read_bytes()
        except OSError as error:
            raise ArtifactError(
                f"{path}: {name} is missing; the manifest lists it, so restore it or rebuild"
            ) from error
        found = hashlib.sha256(contents[name]).hexdigest()
        expected = listed[name].get("sha256") if isinstance(listed[name], dict) else None
        if found != expected:
            raise ArtifactError(
                f"{path}: {name} has sha256 {found}, the manifest says {expected}; the file is corrupted or edited"
            )
    return contents


def _manifest(model: QualityModel, provenance: Provenance, contents: Mapping[str, bytes]) -> dict[str, Any]:
    window = model.features.window
    calibration = model.calibration
    return {
        "schema_version": SCHEMA_VERSION,
        "name": model.name,
        "version": model.version,
        "created": provenance.created,
        "sources": [{"name": s.name, "licence": s.licence, "use": s.use} for s in provenance.sources],
        "features": {
            "window_head_characters": window.head_characters,
            "window_tail_characters": window.tail_characters,
            "names": list(model.features.names),
        },
        "calibration": {
            "variance_scale": calibration.variance_scale,
            "variance_floor": calibration.variance_floor,
            "stand_in_variance": calibration.stand_in_variance,
        },
        "risk_prompt_count": None if model.risk_table is None else model.risk_table.prompt_count,
        "settings": dict(provenance.settings),
        "metrics": {group: dict(values) for group, values in provenance.metrics.items()},
        "packages": dict(provenance.packages),
        "benchmarks": list(model.joining.benchmarks),
        "joined": [asdict(joined) for joined in provenance.joined],
        "files": {
            name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            for name, content in sorted(contents.items())
        },
    }


def _model(manifest: Mapping[str, Any], contents: Mapping[str, bytes]) -> QualityModel:
    tensors = load_tensors(contents[TENSORS_FILE])
    features = FeatureExtractor(
        table=WordTable(
            words=tuple(json.loads(contents[VOCABULARY_FILE])),
            values=tensors["word_values"],
            scale=tensors["word_scale"],
            weight=tensors["word_weight"],
        ),
        ngrams=NgramTable(
            weight=tensors["ngram_weight"],
            values=tensors["ngram_values"],
            scale=tensors["ngram_scale"],
            offset=tensors["ngram_offset"],
            category_latents=tensors["category_latents"],
        ),
        window=Window(
            head_characters=manifest["features"]["window_head_characters"],
            tail_characters=manifest["features"]["window_tail_characters"],
        ),
    )
    booster = xgboost.Booster()
    booster.load_model(bytearray(contents[BOOSTER_FILE]))
    return QualityModel(
        name=manifest["name"],
        version=manifest["version"],
        features=features,
        booster=booster,
        profiles=tuple(_profile(entry) for entry in json.loads(contents[PROFILES_FILE])),
        table=ProfileTable(
            weights=tensors["profile_weights"],
            covariance=tensors["profile_covariance"],
            length=tensors["profile_length"],
        ),
        calibration=IntervalCalibration(**manifest["calibration"]),
        joining=Joining(
            prior_mean=tensors["joining_prior_mean"],
            prior_factor=tensors["joining_prior_factor"],
            benchmarks=tuple(manifest["benchmarks"]),
            anchors=tensors["joining_anchors"],
            offsets=tensors["joining_offsets"],
        ),
        risk_table=_risk_table(tensors, prompt_count=manifest.get("risk_prompt_count")),
    )


def _tensors(model: QualityModel) -> dict[str, np.ndarray[Any, Any]]:
    return {
        "word_values": model.features.table.values,
        "word_scale": model.features.table.scale,
        "word_weight": model.features.table.weight,
        "ngram_weight": model.features.ngrams.weight,
        "ngram_values": model.features.ngrams.values,
        "ngram_scale": model.features.ngrams.scale,
        "ngram_offset": model.features.ngrams.offset,
        "category_latents": model.features.ngrams.category_latents,
        "profile_weights": model.table.weights,
        "profile_covariance": model.table.covariance,
        "profile_length": model.table.length,
        "joining_prior_mean": model.joining.prior_mean,
        "joining_prior_factor": model.joining.prior_factor,
        "joining_anchors": model.joining.anchors,
        "joining_offsets": model.joining.offsets,
        **_risk_tensors(model.risk_table),
    }


def _risk_tensors(table: RiskTable | None) -> dict[str, np.ndarray[Any, Any]]:
    if table is None:
        return {}
    return {
        "risk_model_counts": np.array(table.model_counts),
        "risk_shares": np.array(table.shares),
        "risk_levels": np.array(table.risks),
        "risk_gap_max": np.array(table.gap_max),
    }


def _risk_table(tensors: Mapping[str, np.ndarray[Any, Any]], *, prompt_count: int | None) -> RiskTable | None:
    """None where the manifest counts no held-out prompts, so that nothing is promised."""
    if prompt_count is None:
        return None
    return RiskTable(
        model_counts=tuple(tensors["risk_model_counts"].tolist()),
        shares=tuple(tensors["risk_shares"].tolist()),
        risks=tuple(tensors["risk_levels"].tolist()),
        gap_max=tuple(tuple(tuple(row) for row in rows) for rows in tensors["risk_gap_max"].tolist()),
        prompt_count=prompt_count,
    )


def _profile_json(profile: Profile) -> dict[str, Any]:
    return {
        "model": profile.model,
        "aliases": list(profile.aliases),
        "stand_ins": list(profile.stand_ins),
        "endpoints": [list(endpoint) for endpoint in profile.endpoints],
    }


def _profile(entry: Mapping[str, Any]) -> Profile:
    return Profile(
        model=entry["model"],
        aliases=tuple(entry["aliases"]),
        stand_ins=tuple(entry["stand_ins"]),
        endpoints=tuple((source, model) for source, model in entry["endpoints"]),
    )


def _json_bytes(value: Any, *, indent: int = 2) -> bytes:
    return (json.dumps(value, indent=indent, ensure_ascii=False) + "\n").encode("utf-8")
