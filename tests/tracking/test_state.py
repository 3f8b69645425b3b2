from __future__ import annotations

from typing import Any

from ligo_dist.tracking import clean_key, clean_tags, flatten


def test_nested_parameters_have_dotted_keys() -> None:
    parameters: dict[str, Any] = {
        "seed": 0,
        "tied": None,
        "empty": {},
        "betas": (0.9, 0.95),
        "stages": [{"size": {"width": 8}}, {"size": {"width": 12}}],
    }
    assert flatten(parameters) == {
        "seed": "0",
        "tied": "None",
        "empty": "{}",
        "betas": "[0.9, 0.95]",
        "stages.0.size.width": "8",
        "stages.1.size.width": "12",
    }
    assert flatten({}) == {}


def test_limits_of_the_store_are_kept() -> None:
    ((key, value),) = flatten({"k" * 300: "v" * 600}).items()
    assert (len(key), len(value), value[-4:]) == (250, 500, "v...")
    assert flatten({"k": "v" * 500}) == {"k": "v" * 500}
    assert len(clean_tags({"t": "v" * 9000})["t"]) == 5000


def test_keys_have_only_characters_that_the_store_takes() -> None:
    assert clean_key("a[0]:é/b-c.d e") == "a_0___/b-c.d e"
    assert clean_key("") == "_"


def test_passwords_are_not_stored() -> None:
    assert flatten({"uri": "http://me:secret@host"}) == {"uri": "http://***@host"}
