"""Which keys of a DeepSpeed configuration a user may add, and where the project's own setting of the others
is.

DeepSpeed ignores a top-level key that it does not know, so the names are held against the lists here.
"""

from __future__ import annotations

from typing import Any

from ligo_dist.config.faults import suggestion
from ligo_dist.runtime.errors import Fault

_ACCUMULATION = "it follows from `batch_size`, `micro_batch_size` and the number of ranks"
_PRECISION = "the precision is set by `precision`"
_REMOVED = "was removed from DeepSpeed"
_TRACKED = "what it would write has no loss; metrics go where `tracking` says"
_GRADIENTS = "it scales gradients that are averaged here already"
_WHOLE_WORLD = "partitions lie over all ranks here, and nothing else divides the model"

OWNED: dict[str, str] = {
    "train_batch_size": "it is set by `stages[].train.batch_size`",
    "train_micro_batch_size_per_gpu": "it is set by `stages[].train.micro_batch_size`",
    "gradient_accumulation_steps": _ACCUMULATION,
    "managed_gradient_accumulation": _ACCUMULATION,
    "gradient_clipping": "it is set by `stages[].train.optimizer.gradient_clipping`",
    "optimizer": "it is set by `stages[].train.optimizer`",
    "scheduler": "the learning rate is set by `stages[].train.schedule`",
    "fp16": _PRECISION,
    "bf16": _PRECISION,
    "bfloat16": _PRECISION,
    "torch_autocast": _PRECISION,
    "data_types": "gradients are accumulated in fp32 always",
    "activation_checkpointing": "it is set by `stages[].train.activation_checkpointing`",
    "checkpoint": "checkpoints are set by `checkpoints`",
    "data_efficiency": "the order of the data is the project's own",
    "dataloader_drop_last": "the order of the data is the project's own",
    "zero_allow_untested_optimizer": "it is set by `stages[].train.optimizer`",
    "pipeline": _WHOLE_WORLD,
    "tensor_parallel": _WHOLE_WORLD,
    "sequence_parallel_size": _WHOLE_WORLD,
    "expert_parallel": _WHOLE_WORLD,
    "gradient_predivide_factor": _GRADIENTS,
    "prescale_gradients": _GRADIENTS,
    "comet": _TRACKED,
    "csv_monitor": _TRACKED,
    "monitor_config": _TRACKED,
    "tensorboard": _TRACKED,
    "wandb": _TRACKED,
    "zero_force_ds_cpu_optimizer": "the optimizer is torch's AdamW always, offloaded too",
    "hybrid_engine": "it is for generation, which this project does not do",
    "autotuning": "it starts runs of its own",
    "amp": f"it {_REMOVED}; {_PRECISION}",
    "elasticity": f"it {_REMOVED}; a run resumes on any number of ranks instead",
    "nebula": f"it {_REMOVED}",
    "compression_training": f"it {_REMOVED}",
    "quantize_training": f"it {_REMOVED}",
    "sparse_gradients": f"it {_REMOVED}",
    "sparse_attention": f"it {_REMOVED}",
    "eigenvalue": f"it {_REMOVED}",
    "graph_harvesting": f"it {_REMOVED}",
    "curriculum_learning": f"it {_REMOVED}",
    "progressive_layer_drop": f"it {_REMOVED}",
}

ALLOWED = (
    "aio",
    "comms_logger",
    "communication_data_type",
    "disable_allgather",
    "disable_python_gc",
    "dump_state",
    "flops_profiler",
    "log_level",
    "memory_breakdown",
    "steps_per_print",
    "timers",
    "wall_clock_breakdown",
    "zero_optimization",
)

_NO_QUANTIZED = "growing reads and writes the partitions themselves, which must be plain numbers"
ZERO_OWNED: dict[str, str] = {
    "zero_quantized_weights": _NO_QUANTIZED,
    "zero_quantized_nontrainable_weights": _NO_QUANTIZED,
    "compute_grad_norm": "the norm of the gradient is what tells a run that goes wrong",
    "elastic_checkpoint": "DeepSpeed has none for stage 3; a run resumes on any number of ranks anyway",
    "load_from_fp32_weights": "checkpoints are the project's own",
    "cpu_offload": "write `offload_optimizer: {device: cpu}`",
    "cpu_offload_param": "write `offload_param: {device: cpu}`",
    "cpu_offload_use_pin_memory": "write `offload_optimizer: {device: cpu, pin_memory: true}`",
    "stage3_gather_fp16_weights_on_model_save": "models are exported by the project itself",
    "stage3_gather_16bit_weights_on_model_save": "models are exported by the project itself",
    "gather_16bit_weights_on_model_save": "models are exported by the project itself",
    "mics_shard_size": f"it {_REMOVED}",
    "mics_hierarchical_params_gather": f"it {_REMOVED}",
    "zeropp_loco_param": f"it {_REMOVED}",
    "zenflow": "it has an optimizer of its own; the optimizer is set by `stages[].train.optimizer`",
    "legacy_stage1": "the stage is 3 always",
    "save_muon_momentum_buffer_in_memory": "the optimizer is AdamW always",
}

ZERO_ALLOWED = (
    "allgather_bucket_size",
    "allgather_partitions",
    "contiguous_gradients",
    "enable_sanity_checks",
    "ignore_unused_parameters",
    "leaf_module",
    "log_trace_cache_warnings",
    "memory_efficient_linear",
    "offload_optimizer",
    "offload_param",
    "overlap_comm",
    "override_module_apply",
    "parameter_alignment",
    "pipeline_loading_checkpoint",
    "reduce_bucket_size",
    "reduce_scatter",
    "round_robin_gradients",
    "stage",
    "stage3_allgather_sequential",
    "stage3_max_live_parameters",
    "stage3_max_reuse_distance",
    "stage3_model_persistence_threshold",
    "stage3_module_granularity_threshold",
    "stage3_param_persistence_threshold",
    "stage3_prefetch_bucket_size",
    "stage3_use_all_reduce_for_fetch_params",
    "sub_group_size",
    "use_multi_rank_bucket_allreduce",
    "zero_hpz_partition_size",
    "zero_quantized_gradients",
)


def deepspeed_faults(keys: dict[str, Any]) -> list[Fault]:
    """Keys that contradict what the project sets, and keys that DeepSpeed would ignore."""
    faults = _key_faults("deepspeed", keys, OWNED, ALLOWED)
    zero = keys.get("zero_optimization")
    if zero is None:
        return faults
    path = "deepspeed.zero_optimization"
    if not isinstance(zero, dict):
        return [*faults, Fault(path, f"{zero!r} should be a section (a mapping of keys to values)")]
    faults += _key_faults(path, zero, ZERO_OWNED, ZERO_ALLOWED)
    if zero.get("stage", 3) != 3:
        wrong = f"{zero['stage']!r} should be 3, or absent: everything here is sharded by ZeRO-3"
        faults.append(Fault(f"{path}.stage", wrong))
    for name in ("offload_param", "offload_optimizer"):
        offload = zero.get(name)
        if isinstance(offload, dict) and offload.get("device") == "nvme":
            wrong = "'nvme' cannot be used: growing writes the partitions one by one, each through the disk"
            faults.append(Fault(f"{path}.{name}.device", f"{wrong}; cpu or none would be right"))
        if isinstance(offload, dict) and offload.get("ratio", 1) != 1:
            wrong = f"{offload['ratio']!r}: a part can be offloaded with DeepSpeed's own optimizer only"
            faults.append(Fault(f"{path}.{name}.ratio", f"{wrong}; 1 would be right"))
    return faults


def _key_faults(
    path: str, keys: dict[str, Any], owned: dict[str, str], allowed: tuple[str, ...]
) -> list[Fault]:
    faults = []
    for key in keys:
        if key in owned:
            faults.append(Fault(f"{path}.{key}", f"cannot be given: {owned[key]}"))
        elif key not in allowed:
            faults.append(Fault(f"{path}.{key}", f"unknown key{suggestion(key, allowed)}"))
    return faults
