from __future__ import annotations

import re

import pytest

from launcher.given_nodes import GivenPlace, given_place
from ligo_dist.errors import LigoError

KUBEFLOW = {"PET_NNODES": "4", "PET_NODE_RANK": "2", "PET_MASTER_ADDR": "job-0", "PET_MASTER_PORT": "23456"}
PER_NODE = {"WORLD_SIZE": "4", "RANK": "0", "MASTER_ADDR": "job-0", "MASTER_PORT": "23456"}


def test_the_place_of_a_node():
    assert given_place(KUBEFLOW) == GivenPlace(2, 4, "job-0", 23456)
    assert given_place(PER_NODE) == GivenPlace(0, 4, "job-0", 23456)
    assert given_place({**PER_NODE, **KUBEFLOW}) == GivenPlace(2, 4, "job-0", 23456)


def test_nothing_is_said():
    assert given_place({}) is None
    assert given_place({"MASTER_ADDR": "job-0"}) is None
    assert given_place({**KUBEFLOW, "PET_NNODES": "1", "PET_NODE_RANK": "0"}) is None


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({**PER_NODE, "LOCAL_RANK": "0"}, "LOCAL_RANK: this process is a rank already"),
        ({**KUBEFLOW, "PET_MASTER_ADDR": ""}, "PET_MASTER_ADDR: is not set, though PET_NNODES is"),
        (
            {"WORLD_SIZE": "2", "RANK": "1", "MASTER_ADDR": "a"},
            "MASTER_PORT: is not set, though WORLD_SIZE is",
        ),
        ({**KUBEFLOW, "PET_NNODES": "2:4"}, "PET_NNODES: '2:4' should be a whole number"),
        ({**KUBEFLOW, "PET_NODE_RANK": "4"}, "PET_NODE_RANK: 4 is no number of one of 4 nodes, from 0"),
    ],
)
def test_what_is_missing_or_wrong(environ, said):
    with pytest.raises(LigoError, match=re.escape(said)):
        given_place(environ)
