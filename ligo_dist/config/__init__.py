"""The configuration: one YAML file, checked as a whole before anything starts. Imports no torch."""

from ligo_dist.config.cluster import Cluster, Slurm
from ligo_dist.config.compare import SOURCE, Contender, read_contender
from ligo_dist.config.data import Data
from ligo_dist.config.deepspeed_keys import (
    ALLOWED,
    OWNED,
    ZERO_OWNED,
    check_deepspeed_keys_apart,
    deepspeed_faults,
)
from ligo_dist.config.differences import MAY_CHANGE, changes, completed, difference, what_may_change
from ligo_dist.config.faults import suggestion
from ligo_dist.config.harness import Harness
from ligo_dist.config.huggingface import (
    asks_the_library,
    check_huggingface_keys,
    check_huggingface_keys_apart,
    check_models_apart,
)
from ligo_dist.config.liger import Liger
from ligo_dist.config.load import apply_overrides, config_from, load_config
from ligo_dist.config.mixture import (
    SMALLEST_SHARE,
    source_configs,
    stage_weights,
    told_of_source,
    trains_tokenizer,
)
from ligo_dist.config.precision import begun_directories, recorded_precision, resolve_precision
from ligo_dist.config.profile import Profile
from ligo_dist.config.resolve import (
    PASSES_OVER,
    attention_of,
    is_image_family,
    learn_batch,
    learn_steps,
    method_of,
    model_shape,
    reads_tokens,
    stage_shapes,
    tokens_per_sample,
)
from ligo_dist.config.rules import check_world_size, owned_huggingface_keys
from ligo_dist.config.schema import Config, Learn, Model, Optimizer, Stage, StartFrom, Tokenizer, Train
from ligo_dist.config.section import types_at
from ligo_dist.config.source import (
    SourceConfig,
    complete,
    read_source_config,
    read_source_config_apart,
    source_config_of,
    with_source,
    with_source_apart,
)
from ligo_dist.config.yaml_text import dump_yaml, parse_yaml, set_value

__all__ = [
    "ALLOWED",
    "MAY_CHANGE",
    "OWNED",
    "PASSES_OVER",
    "SMALLEST_SHARE",
    "SOURCE",
    "ZERO_OWNED",
    "Cluster",
    "Config",
    "Contender",
    "Data",
    "Harness",
    "Learn",
    "Liger",
    "Model",
    "Optimizer",
    "Profile",
    "Slurm",
    "SourceConfig",
    "Stage",
    "StartFrom",
    "Tokenizer",
    "Train",
    "apply_overrides",
    "asks_the_library",
    "attention_of",
    "begun_directories",
    "changes",
    "check_deepspeed_keys_apart",
    "check_huggingface_keys",
    "check_huggingface_keys_apart",
    "check_models_apart",
    "check_world_size",
    "complete",
    "completed",
    "config_from",
    "deepspeed_faults",
    "difference",
    "dump_yaml",
    "is_image_family",
    "learn_batch",
    "learn_steps",
    "load_config",
    "method_of",
    "model_shape",
    "owned_huggingface_keys",
    "parse_yaml",
    "read_contender",
    "read_source_config",
    "read_source_config_apart",
    "reads_tokens",
    "recorded_precision",
    "resolve_precision",
    "set_value",
    "source_config_of",
    "source_configs",
    "stage_shapes",
    "stage_weights",
    "suggestion",
    "tokens_per_sample",
    "told_of_source",
    "trains_tokenizer",
    "types_at",
    "what_may_change",
    "with_source",
    "with_source_apart",
]
