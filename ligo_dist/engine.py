"""DeepSpeed ZeRO-3, met here and nowhere else: building an engine, one training step, reading and writing partitions.

What is written down as code here was checked in DeepSpeed 0.19.8; see docs/deepspeed.md for why each call is there.
"""

from __future__ import annotations

import ctypes
import gc
import math
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import deepspeed
import torch
import torch.distributed as dist
from deepspeed.accelerator import get_accelerator
from deepspeed.utils import (
    safe_get_local_fp32_param,
    safe_get_local_optimizer_state,
    safe_set_local_fp32_param,
)
from torch import Tensor, nn
from transformers.integrations.deepspeed import prevent_arange_dtype_change

from ligo_dist.distributed import World, max_over_ranks, sum_over_ranks
from ligo_dist.rank_environment import export_rank_environment
from ligo_dist.shards import Shards, padded, partition_range
from ligo_dist.zero3 import Zero3

ADAM_MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class OptimizerSettings:
    """AdamW (Loshchilov & Hutter, 2019); matrices decay, vectors (norms and biases) do not."""

    learning_rate: float
    betas: tuple[float, float]
    epsilon: float
    weight_decay: float
    gradient_clipping: float


@dataclass(frozen=True)
class StepResult:
    """One optimizer step: mean loss over the whole batch, global gradient norm before clipping."""

    loss: float
    gradient_norm: float

    @property
    def is_finite(self) -> bool:
        return math.isfinite(self.loss) and math.isfinite(self.gradient_norm)


@dataclass(frozen=True)
class Evaluation:
    """Mean loss per prediction; for classifiers the part of the samples that they get right, else None."""

    loss: float
    accuracy: float | None = None


def start_world(timeout_seconds: float) -> World:
    """Join the process group that the environment describes.

    Raises:
        LigoError: see `rank_environment`.
    """
    # The shared-memory op serves inference only, and compiling it takes over a minute or hangs on a stale lock.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    environment = export_rank_environment()
    accelerator = get_accelerator()
    device = torch.device(accelerator.device_name())
    if device.type != "cpu":
        # Whoever shows each rank its own device alone (Slurm does, with `--gpus-per-task`) calls them all the first.
        index = 0 if accelerator.device_count() == 1 else environment.local_rank
        os.environ["LOCAL_RANK"] = str(index)  # DeepSpeed takes the device from there
        device = torch.device(accelerator.device_name(), index)
        accelerator.set_device(index)
    backend = accelerator.communication_backend_name()
    backend = "gloo" if device.type == "cpu" else backend
    deepspeed.init_distributed(backend, timeout=timedelta(seconds=timeout_seconds), verbose=False)
    world = World(dist.get_rank(), dist.get_world_size(), device)
    # Ranks on nodes of unequal size may know different numbers; all go by one.
    return replace(world, nodes=int(max_over_ranks(environment.num_nodes, world)))


def get_accelerator_name() -> str:
    """`cpu`, `cuda`, ...: what the ranks compute on."""
    return get_accelerator().device_name()


def stop_world() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


@contextmanager
def partitioned_parameters(dtype: torch.dtype) -> Iterator[None]:
    """Modules built inside have their parameters partitioned over the ranks as soon as each is built."""
    # By configuration: zero.Init ignores its `dtype` argument where the accelerator has no fp16.
    config = {
        "train_micro_batch_size_per_gpu": 1,
        "bf16": {"enabled": dtype == torch.bfloat16},
        "zero_optimization": {"stage": 3},
    }
    with prevent_arange_dtype_change(), deepspeed.zero.Init(config_dict_or_path=config):
        yield


def partitioned_shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    """Shapes of the whole parameters of a module built under `partitioned_parameters`, by name."""
    parameters: Iterator[tuple[str, Any]] = module.named_parameters()
    return {name: tuple(parameter.ds_shape) for name, parameter in parameters}


def partitions(module: nn.Module, world: World) -> Shards:
    """Copies of this rank's partitions of a module built under `partitioned_parameters`."""
    parameters: Iterator[tuple[str, Any]] = module.named_parameters()
    return {name: _without_padding(parameter, parameter.ds_tensor, world) for name, parameter in parameters}


def engine_config(
    precision: str, micro_batch_size: int, accumulation: int, clipping: float, user: Mapping[str, Any]
) -> dict[str, Any]:
    """The DeepSpeed configuration of one engine: ours, with the user's keys merged in."""
    ours: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": micro_batch_size,
        "gradient_accumulation_steps": accumulation,
        "gradient_clipping": clipping,
        "steps_per_print": 10**12,
        "bf16": {"enabled": precision == "bf16"},
        "data_types": {"grad_accum_dtype": "fp32"},
        "zero_force_ds_cpu_optimizer": False,
        "zero_optimization": {
            "stage": 3,
            "overlap_comm": get_accelerator().device_name() != "cpu",
            "reduce_bucket_size": Zero3.reduce_bucket,
            "stage3_prefetch_bucket_size": Zero3.prefetch_bucket,
            "stage3_param_persistence_threshold": Zero3.persistence_threshold,
        },
    }
    return _merged(ours, user)


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(base)
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = _merged(result[key], value) if both else value
    return result


class Engine:
    """A module trained by DeepSpeed ZeRO-3, with its partitions open to reading and writing.

    The module is called with a micro-batch's tensors by name, `labels` among them, and returns an object with a
    scalar `loss`, the mean over the micro-batch's predictions, and (classifiers) `logits`.
    """

    def __init__(
        self,
        module: nn.Module,
        optimizer: OptimizerSettings,
        config: dict[str, Any],
        world: World,
        external_parameters: Iterable[tuple[nn.Module, nn.Parameter]] = (),
        rename: Callable[[str], str] = str,
        kind_of: Callable[[str], str] = lambda name: "model",
    ) -> None:
        """
        Args:
            module: what is trained; its parameters may be partitioned already.
            optimizer: of all its parameters.
            config: from `engine_config`.
            world: the ranks.
            external_parameters: (module, parameter) where a module uses another one's parameter: it is gathered for it.
            rename: from a parameter's name in the module to its name in `parameters`, and so in shards.
            kind_of: from that name to the kind of the parameter; each kind has its own learning rate.
        """
        self.world = world
        for user, parameter in external_parameters:
            deepspeed.zero.register_external_parameter(user, parameter)
        groups = _parameter_groups(module, optimizer.weight_decay, lambda name: kind_of(rename(name)))
        inner = torch.optim.AdamW(
            groups, lr=optimizer.learning_rate, betas=optimizer.betas, eps=optimizer.epsilon
        )
        self._engine, *_ = deepspeed.initialize(model=module, optimizer=inner, config=config)
        self._has_trained = False
        # Any: what ZeRO-3 adds to a parameter (ds_numel, ds_tensor, ...) is not in its type.
        self.parameters: dict[str, Any] = {
            rename(name): parameter for name, parameter in self._engine.module.named_parameters()
        }

    @property
    def module(self) -> nn.Module:
        return self._engine.module

    @property
    def accumulation(self) -> int:
        """Micro-batches a rank takes for one optimizer step."""
        return self._engine.gradient_accumulation_steps()

    def train_step(
        self,
        micro_batches: Iterable[tuple[Mapping[str, Tensor], int]],
        batch_size: int,
        learning_rates: Mapping[str, float],
    ) -> StepResult:
        """One optimizer step along the gradient of the mean loss over a batch, of which this rank has a part.

        Args:
            micro_batches: as in `evaluate`, `accumulation` of them on every rank.
            batch_size: samples that count, of all ranks together.
            learning_rates: of each kind of parameter.
        """
        for group in self._engine.optimizer.param_groups:
            group["lr"] = learning_rates[group["kind"]]
        if not self._has_trained:
            _forget_forward_passes(self._engine.optimizer)
            self._has_trained = True
        self._engine.train()
        total = torch.zeros((), device=self.world.device, dtype=torch.float64)
        count = samples = 0
        for inputs, num_valid in micro_batches:
            # DeepSpeed takes the mean over micro-batches and ranks. With this weight, which is exactly 1 where the
            # batch divides, that is the mean over samples.
            weight = num_valid * self.world.size * self.accumulation / batch_size
            loss = self._engine(**self._inputs(inputs)).loss
            self._engine.backward(loss * weight)
            self._engine.step()
            total += loss.detach().double() * weight
            count += 1
            samples += num_valid
        assert count == self.accumulation, f"{count} micro-batches, {self.accumulation} expected"
        mean, samples_everywhere = sum_over_ranks([total.item() / count, samples], self.world)
        assert samples_everywhere == batch_size, f"{samples_everywhere:g} samples, {batch_size} expected"
        return StepResult(mean / self.world.size, float(self._engine.get_global_grad_norm()))

    @torch.no_grad()
    def evaluate(self, batches: Iterable[tuple[Mapping[str, Tensor], int]]) -> Evaluation:
        """Mean loss per prediction over all ranks, and the accuracy where labels are classes of whole samples.

        Args:
            batches: (the module's inputs, how many of the samples count), the labels of the other samples -100; all
                samples have equally many predictions. Every rank must bring the same number of batches; those of
                which no sample counts are there to keep the ranks together.
        """
        self._engine.eval()
        loss_sum, samples, correct = 0.0, 0, 0
        classifies = False
        for batch, valid in batches:
            inputs = self._inputs(batch)
            output = self._engine(**inputs)
            if valid:
                loss_sum += output.loss.item() * valid
                samples += valid
            if inputs["labels"].dim() == 1:
                classifies = True
                predicted = output.logits[:valid].argmax(dim=-1)
                correct += int((predicted == inputs["labels"][:valid]).sum())
        loss_sum, samples_everywhere, correct_everywhere = sum_over_ranks(
            [loss_sum, samples, correct], self.world
        )
        self._drop_gathered()
        accuracy = correct_everywhere / samples_everywhere if classifies else None
        return Evaluation(loss_sum / samples_everywhere, accuracy)

    @torch.no_grad()
    def logits(self, batch: Mapping[str, Tensor]) -> Tensor:
        """What a Hugging Face model makes of a batch, labels aside, under its current weights: the logits, or the
        hidden states of a model without a head. Collective."""
        self._engine.eval()
        inputs = self._inputs({name: tensor for name, tensor in batch.items() if name != "labels"})
        logits: Tensor = self._engine(**inputs)[0]
        self._drop_gathered()
        return logits

    def _drop_gathered(self) -> None:
        """Drop the weights that a forward pass leaves gathered for its backward pass, where there is none: they would
        take up memory, and not follow what is written to the partitions."""
        self._engine.optimizer.empty_partition_cache()

    def _inputs(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A batch where and as the module takes it: images in the precision of the weights."""
        dtype = next(self._engine.module.parameters()).dtype
        return {
            name: tensor.to(self.world.device, dtype if tensor.is_floating_point() else None)
            for name, tensor in batch.items()
        }

    @property
    def numels(self) -> dict[str, int]:
        """Elements of each whole parameter."""
        return {name: parameter.ds_numel for name, parameter in self.parameters.items()}

    def read_shards(self) -> Shards:
        """A copy of this rank's fp32 partitions."""
        return {
            name: _without_padding(p, safe_get_local_fp32_param(p), self.world)
            for name, p in self.parameters.items()
        }

    def write_shards(self, shards: Iterable[tuple[str, Tensor]]) -> None:
        """Set the weights from partitions; each is written when it comes, so a generator holds one at a time.

        Raises:
            ValueError: if a parameter is missing, unknown or given twice.
        """
        left = dict(self.parameters)
        for name, shard in shards:
            if name not in left:
                raise ValueError(f"{name}: not a parameter of this engine, or written twice")
            parameter = left.pop(name)
            whole = padded(shard, parameter.partition_numel())
            safe_set_local_fp32_param(parameter, whole)
            parameter.ds_tensor.data.copy_(whole)
        if left:
            raise ValueError(f"parameters left without a value: {', '.join(sorted(left))}")
        self._refresh_replicas()

    def _refresh_replicas(self) -> None:
        """Make the copies that ZeRO-3 keeps beside the partitions follow them: small whole parameters, hpZ shards."""
        optimizer = self._engine.optimizer
        persistent = optimizer.persistent_parameters
        for parameter in persistent:
            parameter.partition()
        if persistent:
            persistent[0].all_gather(persistent)
        optimizer.invalidate_secondary_tensor()

    def read_moments(self) -> dict[str, Shards]:
        """Copies of this rank's Adam moments, by moment and parameter; empty before the first step."""
        if not self._inner_optimizer.state:
            return {}
        return {
            moment: {
                name: _without_padding(p, safe_get_local_optimizer_state(p, moment), self.world)
                for name, p in self.parameters.items()
            }
            for moment in ADAM_MOMENTS
        }

    def write_moments(self, moments: Mapping[str, Shards], steps: int) -> None:
        """Set Adam's moments from partitions (padding may be missing), and its step count."""
        optimizer = self._engine.optimizer
        for flat in optimizer.fp32_partitioned_groups_flat:
            self._inner_optimizer.state[flat] = {
                "step": torch.tensor(float(steps)),
                **{moment: torch.zeros_like(flat) for moment in ADAM_MOMENTS},
            }
        for moment, shards in moments.items():
            for name, parameter in self.parameters.items():
                # A view of the optimizer's own state, as with the master weights.
                whole = padded(shards[name], parameter.partition_numel())
                safe_get_local_optimizer_state(parameter, moment).copy_(whole)

    @property
    def _inner_optimizer(self) -> torch.optim.Optimizer:
        return self._engine.optimizer.optimizer

    def release(self) -> None:
        """Free everything the engine holds: weights, gradients, optimizer. The engine is unusable afterwards."""
        root = self._engine.module
        self._engine.destroy()
        _forget(root)
        self.parameters = {}
        del self._engine, root
        gc.collect()
        _return_freed_memory()


def _parameter_groups(
    module: nn.Module, weight_decay: float, kind_of: Callable[[str], str]
) -> list[dict[str, Any]]:
    """The optimizer's groups: by kind, and in each kind matrices and vectors, of which only matrices decay."""

    def dims(parameter: nn.Parameter) -> int:
        return len(parameter.ds_shape) if hasattr(parameter, "ds_shape") else parameter.dim()

    groups: dict[tuple[str, bool], list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            groups.setdefault((kind_of(name), dims(parameter) > 1), []).append(parameter)
    return [
        {"params": parameters, "weight_decay": weight_decay if decays else 0.0, "kind": kind}
        for (kind, decays), parameters in sorted(
            groups.items(), key=lambda item: (item[0][0], not item[0][1])
        )
    ]


def _return_freed_memory() -> None:
    """Give what was freed back to the device, or to the system where there is none."""
    get_accelerator().empty_cache()
    if get_accelerator_name() == "cpu":
        with suppress(AttributeError, OSError):  # not glibc
            ctypes.CDLL(None).malloc_trim(0)


def _without_padding(parameter: Any, local: Tensor, world: World) -> Tensor:
    """A copy with the padding zeroed: DeepSpeed leaves uninitialised memory in it."""
    start, stop = partition_range(parameter.ds_numel, world.rank, world.size)
    return padded(local.detach()[: stop - start], local.numel())


def _forget(root: nn.Module) -> None:
    """Drop the two process-wide references by which DeepSpeed keeps a destroyed engine alive (DeepSpeed #7204)."""
    try:
        from deepspeed.runtime.zero import parameter_offload

        stack = parameter_offload.FWD_MODULE_STACK
        stack[:] = [module for module in stack if module is not root]
        _clear_releases()
    except (ImportError, AttributeError, KeyError) as error:
        warnings.warn(f"this DeepSpeed may keep a finished stage's memory: {error!r}", stacklevel=2)


def _forget_forward_passes(optimizer: Any) -> None:
    """Have DeepSpeed learn the order of the modules anew. Evaluations before the first step have taught it one that
    ends with the forward pass, and which weights to drop after each module: it would do so for ever, and gather all
    weights a second time for each backward pass."""
    try:
        coordinator = optimizer.parameter_offload.get_param_coordinator()
        if not coordinator.is_invalid_trace():
            coordinator._invalidate_trace()
        _clear_releases()
    except (ImportError, AttributeError, KeyError) as error:
        warnings.warn(f"this DeepSpeed may gather weights more often than it must: {error!r}", stacklevel=2)


def _clear_releases() -> None:
    """Clear the cache of what DeepSpeed drops after each module, which outlives the order it was worked out from."""
    from deepspeed.runtime.zero.partitioned_param_coordinator import PartitionedParameterCoordinator

    method = vars(PartitionedParameterCoordinator)["_PartitionedParameterCoordinator__params_to_release"]
    cached: list[Callable[[], None]] = [
        cell.cell_contents.cache_clear
        for cell in method.__closure__ or ()
        if hasattr(cell.cell_contents, "cache_clear")
    ]
    for clear in cached:
        clear()
