"""The configuration: one YAML file, checked as a whole before anything starts. Imports no torch."""

from ligo_dist.config.differences import changes, difference
from ligo_dist.config.huggingface import check_huggingface_keys
from ligo_dist.config.load import config_from, load_config
from ligo_dist.config.resolve import model_shape, stage_shapes
from ligo_dist.config.rules import check_world_size
from ligo_dist.config.schema import Config
from ligo_dist.config.source import with_source

__all__ = [
    "Config",
    "changes",
    "check_huggingface_keys",
    "check_world_size",
    "config_from",
    "difference",
    "load_config",
    "model_shape",
    "stage_shapes",
    "with_source",
]
