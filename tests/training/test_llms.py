"""The table of names."""

from pointsman_server.quality.model import normalised
from pointsman_server.training.llms import KNOWN_LLMS, llm_of


def test_every_name_leads_to_one_profile() -> None:
    """No name stands twice in the table, and each is written in its normalised form."""
    names = [name for llm in KNOWN_LLMS for name in (llm.model, *llm.aliases, *llm.stand_ins)]
    assert len(names) == len(set(names))
    assert names == [normalised(name) for name in names]


def test_every_endpoint_belongs_to_one_llm() -> None:
    """No measured endpoint is a member of two LLMs."""
    members = [member for llm in KNOWN_LLMS for member in llm.members]
    assert len(members) == len(set(members))


def test_an_unlisted_endpoint_is_its_own_llm() -> None:
    """What the table does not mention keeps its own name; where that name is taken, its source is added."""
    assert llm_of(("own", "Vendor/My-Model")).model == "my-model"
    assert llm_of(("own", "gpt-4o")).model == "gpt-4o.own"
