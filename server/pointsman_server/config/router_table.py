"""How `[routers.NAME]` is written."""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Mapping
from pathlib import Path

import pointsman_server
from pointsman_server.catalog.entry_table import MODEL_RULE
from pointsman_server.catalog.toml_table import Hint, Table, shortened
from pointsman_server.config.settings import DEFAULT_ROUTER, RouterSettings
from pointsman_server.config.text_rules import LINE_RULE, read_path
from pointsman_server.decision.router_string import DEFAULT_HEAD, RouterString, RouterStringError, parse_router_string
from pointsman_server.decision.types import Arm, Endpoint, Exploration

ROUTER_COUNT_MAX = 256
"""People name and choose routers, so there are not many."""
ARM_COUNT_MAX = 8
"""Each arm is a row of every metric by router, and a test among more than nine takes longer than its routers live."""
SHADOW_COUNT_MAX = 4
"""Each shadow costs every request a decision, and with an artifact of its own a prediction: half a millisecond."""
BUILTIN_ARTIFACT = "builtin"
"""Name of the shipped quality artifact."""
BUILTIN_ARTIFACT_PATH = Path(pointsman_server.__file__).parent / "quality" / "builtin"
"""Where it lies; to ask the package of quality models would load all that they need, just to read a configuration."""


def read_artifact(table: Table, directory: Path) -> Path | None:
    """The directory of a quality artifact; None when absent."""
    if table.text("artifact") == BUILTIN_ARTIFACT:
        return BUILTIN_ARTIFACT_PATH
    return read_path(table, "artifact", directory, kind="directory")


def read_routers(root: Table, endpoints: Iterable[Endpoint], directory: Path) -> dict[str, RouterSettings]:
    """`[routers]`, and the default router if it is not among them.

    Args:
        root: The whole file.
        endpoints: All that are declared, callable or not: what a policy may name.
        directory: What the paths of artifacts are relative to.
    """
    known = {
        "model": frozenset(endpoint.model for endpoint in endpoints),
        "provider": frozenset(endpoint.provider for endpoint in endpoints),
        "endpoint": frozenset(endpoint.name for endpoint in endpoints),
    }
    routers = {DEFAULT_ROUTER: RouterSettings(name=DEFAULT_ROUTER)}
    tables = dict(root.tables("routers", count_max=ROUTER_COUNT_MAX))
    names = frozenset(tables) | {DEFAULT_ROUTER}
    for name, table in tables.items():
        if MODEL_RULE.pattern.fullmatch(name) is None:
            table.fault(None, f"is no name of a router: it must be {MODEL_RULE.wanted}")
        if name in known["model"]:
            table.fault(None, "is the name of a model too, so a router string could mean either: rename it")
        defaults = Exploration()
        routers[name] = RouterSettings(
            name=name,
            description=table.text("description", LINE_RULE) or "",
            policy=_read_policy(table, known),
            artifact=read_artifact(table, directory),
            exploration=Exploration(
                rate=table.number("exploration_rate", defaults.rate, minimum=0.0, maximum=1.0),
                stale_after_s=defaults.stale_after_s,
                near_tie_width=table.number("near_tie_width", defaults.near_tie_width, minimum=0.0, maximum=1.0),
            ),
            split=_read_split(table, name, tables),
            shadows=_read_shadows(table, name, names),
        )
        table.finish()
    return routers


def _read_split(table: Table, name: str, routers: Mapping[str, Table]) -> tuple[Arm, ...]:
    """`[[routers.NAME.split]]`. An arm may not split in turn, so that nothing goes in circles and a share is what it says."""
    arms: dict[str, Arm] = {}
    for arm_table in table.array_of_tables("split", count_max=ARM_COUNT_MAX):
        arm_table.require("router", "share")
        arm_name = arm_table.text("router")
        share = arm_table.number("share", None, minimum=0.0, maximum=1.0, above_minimum=True)
        arm_table.finish()
        if arm_name is None:
            continue
        if (fault := _reference_fault(arm_name, name, frozenset(routers) | {DEFAULT_ROUTER}, arms)) is not None:
            arm_table.fault("router", *fault)
        elif arm_name in routers and "split" in routers[arm_name]:
            arm_table.fault("router", f"`{shortened(arm_name)}` has a split itself: name its arms here instead")
        elif share is not None:
            arms[arm_name] = Arm(arm_name, share)
    total = math.fsum(arm.share for arm in arms.values())
    if total > 1.0:
        table.fault("split", f"the shares add up to {total:g}, which is more than 1")
    return tuple(arms.values())


def _read_shadows(table: Table, name: str, names: frozenset[str]) -> tuple[str, ...]:
    shadows = table.texts("shadow")
    if len(shadows) > SHADOW_COUNT_MAX:
        table.fault("shadow", f"must hold at most {SHADOW_COUNT_MAX} routers, not {len(shadows)}")
    for shadow in shadows[:SHADOW_COUNT_MAX]:
        if (fault := _reference_fault(shadow, name, names, ())) is not None:
            table.fault("shadow", *fault)
    return shadows


def _reference_fault(
    other: str, name: str, names: frozenset[str], earlier: Container[str]
) -> tuple[str, Hint | None] | None:
    """What is wrong with naming router `other` in the table of router `name`; None if nothing."""
    if other == name:
        return "is the router itself; name another one", None
    if other not in names:
        return f"there is no router `{shortened(other)}`", Hint(other, names)
    if other in earlier:
        return f"`{shortened(other)}` is listed twice; add its shares up", None
    return None


def _read_policy(table: Table, known: dict[str, frozenset[str]]) -> RouterString:
    try:
        policy = parse_router_string(table.text("policy") or DEFAULT_HEAD)
    except RouterStringError as error:
        table.fault("policy", str(error))
        return parse_router_string(DEFAULT_HEAD)
    for alternative in policy.alternatives:
        head, space = alternative.head, alternative.space
        if head != DEFAULT_HEAD and head not in known["model"]:
            hint = Hint(head, known["model"])
            table.fault("policy", f"`{shortened(head)}` is neither `{DEFAULT_HEAD}` nor a model of the catalog", hint)
        for kind, named in (
            ("model", space.models | space.skip_models),
            ("provider", space.providers | space.skip_providers),
            ("endpoint", space.endpoints | space.skip_endpoints),
        ):
            for name in sorted(named - known[kind]):
                table.fault("policy", f"the catalog has no {kind} `{shortened(name)}`", Hint(name, known[kind]))
    return policy
