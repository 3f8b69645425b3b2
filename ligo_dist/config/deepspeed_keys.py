"""Which keys of a DeepSpeed configuration a user may not add, and where the project's own setting of these is.

The others are checked by DeepSpeed's own models (`ligo_dist.engine.check`), but for the names and kinds at the top:
DeepSpeed ignores a key there that it does not know, and takes any value for one that is no section.
"""

from __future__ import annotations

from typing import Any

from ligo_dist.config.faults import suggestion
from ligo_dist.runtime.apart import ask_apart
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
    "zero_force_ds_cpu_optimizer": "the optimizer is set by `stages[].train.optimizer`, offloaded too",
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

ALLOWED: dict[str, type] = {
    "aio": dict,
    "comms_logger": dict,
    "communication_data_type": str,
    "disable_allgather": bool,
    "disable_python_gc": bool,
    "dump_state": bool,
    "flops_profiler": dict,
    "log_level": str,
    "memory_breakdown": bool,
    "steps_per_print": int,
    "timers": dict,
    "wall_clock_breakdown": bool,
    "zero_optimization": dict,
}
"""Keys that may be given, with the kind of their values."""

_KINDS = {
    dict: "a section (a mapping of keys to values)",
    bool: "true or false",
    int: "a whole number",
    str: "text",
}

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
    "save_muon_momentum_buffer_in_memory": "it is for DeepSpeed's own Muon, which is not used; Muon is set by"
    " `stages[].train.optimizer`",
}


def deepspeed_faults(keys: dict[str, Any]) -> list[Fault]:
    """Keys that contradict what the project sets, and those that DeepSpeed would not check itself."""
    faults = []
    for key, value in keys.items():
        path = f"deepspeed.{key}"
        if key in OWNED:
            faults.append(Fault(path, f"cannot be given: {OWNED[key]}"))
        elif key not in ALLOWED:
            faults.append(Fault(path, f"unknown key{suggestion(key, ALLOWED)}"))
        elif type(value) is not ALLOWED[key]:
            faults.append(Fault(path, f"{value!r} should be {_KINDS[ALLOWED[key]]}"))
    faults += _auto_faults("deepspeed", keys)
    zero = keys.get("zero_optimization")
    return faults + _zero_faults(zero) if isinstance(zero, dict) else faults


def _auto_faults(path: str, keys: dict[str, Any]) -> list[Fault]:
    """DeepSpeed leaves such a key out, so that its own default counts, which is not the project's."""
    faults = []
    for key, value in keys.items():
        if isinstance(value, dict):
            faults += _auto_faults(f"{path}.{key}", value)
        elif value == "auto" and key not in OWNED:
            wrong = "'auto' is for the Trainer of transformers, which puts a value there; leave the key out"
            faults.append(Fault(f"{path}.{key}", wrong))
    return faults


def _zero_faults(zero: dict[str, Any]) -> list[Fault]:
    path = "deepspeed.zero_optimization"
    faults = [
        Fault(f"{path}.{key}", f"cannot be given: {ZERO_OWNED[key]}") for key in zero if key in ZERO_OWNED
    ]
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


def check_deepspeed_keys_apart(keys: dict[str, Any]) -> list[Fault]:
    """What DeepSpeed itself refuses of keys that are no fault here. It is asked in a process apart, as importing it
    takes seconds; none is started if there are no keys.

    Raises:
        LigoError: if that process fails.
    """
    if not keys:
        return []
    answer = ask_apart("ligo_dist.engine.check", keys, "the keys of deepspeed", with_torch=True)
    return [Fault(path, message) for path, message in answer]
