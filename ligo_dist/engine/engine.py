"""Training a module with ZeRO-3: one step, an evaluation, reading and writing partitions."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import deepspeed
import torch
from deepspeed.utils import (
    safe_get_local_fp32_param,
    safe_get_local_optimizer_state,
    safe_set_local_fp32_param,
    safe_set_local_optimizer_state,
)
from torch import Tensor, nn

from ligo_dist.engine.adamw import ADAM_MOMENTS, build_adamw, set_steps
from ligo_dist.engine.cleanup import forget_engine, forget_forward_passes, return_freed_memory
from ligo_dist.engine.muon import Muon, moments_of
from ligo_dist.engine.new_elements import NewElements
from ligo_dist.engine.shards import Shards, padded
from ligo_dist.engine.world import World, added_over_ranks
from ligo_dist.engine.zero3 import without_padding
from ligo_dist.runtime.optimizers import OptimizerSettings


@dataclass(frozen=True)
class StepResult:
    """One optimizer step: mean loss over the whole batch, global gradient norm before clipping."""

    loss: float
    gradient_norm: float

    @property
    def is_finite(self) -> bool:
        return math.isfinite(self.loss) and math.isfinite(self.gradient_norm)


@dataclass(frozen=True)
class EvaluationResult:
    """Mean loss per prediction; for classifiers the part of the samples that they get right, else None. `parts`: the
    same of each part of the set, by name, where it has parts."""

    loss: float
    accuracy: float | None = None
    parts: Mapping[str, EvaluationResult] = field(default_factory=dict)

    @classmethod
    def of_parts(
        cls, parts: Mapping[str, EvaluationResult], weights: Mapping[str, float]
    ) -> EvaluationResult:
        """The mean of all parts, by weights that need not add up to 1."""
        total = sum(weights[name] for name in parts)

        def mean(of: Callable[[EvaluationResult], float]) -> float:
            return sum(weights[name] * of(part) for name, part in parts.items() if weights[name]) / total

        classifies = all(part.accuracy is not None for part in parts.values())
        accuracy = mean(lambda part: part.accuracy or 0.0) if classifies else None
        return cls(mean(lambda part: part.loss), accuracy, parts)


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
            kind_of: from that name to the kind of the parameter; each kind has its own learning rate. Muon, where the
                optimizer has it, trains those of the kind `MATRICES`.
        """
        self.world = world
        for user, parameter in external_parameters:
            deepspeed.zero.register_external_parameter(user, parameter)
        groups = _parameter_groups(module, optimizer.weight_decay, lambda name: kind_of(rename(name)))
        inner = (
            build_adamw(groups, optimizer, world.device)
            if optimizer.muon is None
            else Muon(groups, optimizer, world)
        )
        self._engine, *_ = deepspeed.initialize(model=module, optimizer=inner, config=config)
        self._has_trained = False
        self._new: NewElements | None = None
        # Any: what ZeRO-3 adds to a parameter (ds_numel, ds_tensor, ...) is not in its type.
        self.parameters: dict[str, Any] = {
            rename(name): parameter for name, parameter in self._engine.module.named_parameters()
        }
        self._kinds = {name: kind_of(name) for name in self.parameters}
        if isinstance(inner, Muon):
            inner.find_matrices(self._engine.optimizer, self.parameters.values())

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
        batch_weight: int,
        learning_rates: Mapping[str, float],
    ) -> StepResult:
        """One optimizer step along the gradient of the mean loss over a batch, of which this rank has a part.

        Args:
            micro_batches: as in `evaluate`, `accumulation` of them on every rank.
            batch_weight: what all of them count, of all ranks together.
            learning_rates: of each kind of parameter.
        """
        for group in self._engine.optimizer.param_groups:
            group["lr"] = learning_rates[group["kind"]]
        if not self._has_trained:
            forget_forward_passes(self._engine.optimizer)
            self._has_trained = True
        self._engine.train()
        total = torch.zeros((), device=self.world.device, dtype=torch.float64)
        count = counted = 0
        for inputs, weight in micro_batches:
            # DeepSpeed takes the mean over micro-batches and ranks. With this factor, which is exactly 1 where the
            # batch divides, that is the mean over samples, or over their predictions.
            # A batch of documents of one token has none.
            factor = weight * self.world.size * self.accumulation / max(1, batch_weight)
            loss = self._engine(**self._inputs(inputs)).loss
            self._engine.backward(loss * factor)
            if self._new is not None and count + 1 == self.accumulation:
                self._new.drop_other_gradients()
            self._engine.step()
            total += loss.detach().double() * factor
            count += 1
            counted += weight
        assert count == self.accumulation, f"{count} micro-batches, {self.accumulation} expected"
        sums = added_over_ranks(torch.stack([total / count, torch.full_like(total, counted)]), self.world)
        norm = torch.as_tensor(self._engine.get_global_grad_norm(), device=sums.device).double()
        # The one place of a step where the host waits for the device, but for what DeepSpeed itself looks at.
        mean, counted_everywhere, norm_before_clipping = torch.cat([sums, norm.reshape(1)]).tolist()
        assert counted_everywhere == batch_weight, f"{counted_everywhere:g} counted, {batch_weight} expected"
        return StepResult(mean / self.world.size, norm_before_clipping)

    def mark_new(self, is_new: Mapping[str, Tensor], rate: float) -> None:
        """Say which elements of the weights are new: from here on they have `rate` times the learning rate, and steps
        may move them alone.

        Args:
            is_new: of each parameter, this rank's partition, as truth values; padding may be missing.
            rate: the factor.
        """
        self._new = NewElements(self._engine.optimizer, self.parameters, is_new, rate)

    def train_new_alone(self, alone: bool) -> None:
        """Whether the steps to come leave all elements as they are but those that `mark_new` called new."""
        assert self._new is not None, "called after mark_new"
        self._new.alone = alone

    @torch.no_grad()
    def evaluate(self, batches: Iterable[tuple[Mapping[str, Tensor], int]]) -> EvaluationResult:
        """Mean loss per prediction over all ranks, and the accuracy where labels are classes of whole samples.

        Args:
            batches: (the module's inputs, what their mean loss counts): samples, where all have equally many
                predictions (classes: one each), else predictions; the labels of what does not count are -100. Every
                rank must bring the same number of batches; those that count nothing keep the ranks together.
        """
        self._engine.eval()
        loss_sum = torch.zeros((), device=self.world.device, dtype=torch.float64)
        correct = torch.zeros_like(loss_sum)
        counted, classifies = 0, False
        for batch, weight in batches:
            inputs = self._inputs(batch)
            output = self._engine(**inputs)
            if weight:
                loss_sum += output.loss.double() * weight
                counted += weight
            if inputs["labels"].dim() == 1:
                classifies = True
                predicted = output.logits[:weight].argmax(dim=-1)
                correct += (predicted == inputs["labels"][:weight]).sum()
        sums = torch.stack([loss_sum, torch.full_like(loss_sum, counted), correct])
        loss_everywhere, counted_everywhere, correct_everywhere = added_over_ranks(sums, self.world).tolist()
        self._drop_gathered()
        accuracy = correct_everywhere / counted_everywhere if classifies else None
        return EvaluationResult(loss_everywhere / counted_everywhere, accuracy)

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

    def read_shards(self, device: torch.device | None = None) -> Shards:
        """A copy of this rank's fp32 partitions; on another device if one is given, and there one by one."""
        return {
            name: without_padding(p, safe_get_local_fp32_param(p), self.world, device)
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

    def read_moments(self, device: torch.device | None = None) -> dict[str, Shards]:
        """Copies of this rank's moments, by moment and parameter, on a device as in `read_shards`; empty before the
        first step. What Muon trains has none of the second."""
        if not self._inner_optimizer.state:
            return {}
        return {
            moment: {
                name: without_padding(p, safe_get_local_optimizer_state(p, moment), self.world, device)
                for name, p in self.parameters.items()
                if moment in moments_of(self._kinds[name])
            }
            for moment in ADAM_MOMENTS
        }

    def write_moments(self, moments: Mapping[str, Shards], steps: int) -> None:
        """Set the moments, as `read_moments` gives them, from partitions (padding may be missing); and Adam's step
        count."""
        optimizer, inner = self._engine.optimizer, self._inner_optimizer
        for index, flat in enumerate(optimizer.fp32_partitioned_groups_flat):
            kind = inner.param_groups[optimizer.sub_group_to_group_id[index]]["kind"]
            set_steps(inner, flat, steps, moments_of(kind))
        for moment, shards in moments.items():
            for name, parameter in self.parameters.items():
                if moment in moments_of(self._kinds[name]):
                    whole = padded(shards[name], parameter.partition_numel())
                    safe_set_local_optimizer_state(parameter, whole, moment)

    @property
    def _inner_optimizer(self) -> torch.optim.Optimizer:
        return self._engine.optimizer.optimizer

    def release(self) -> None:
        """Free everything the engine holds: weights, gradients, optimizer. The engine is unusable afterwards."""
        root = self._engine.module
        self._engine.destroy()
        forget_engine(root)
        self.parameters, self._new = {}, None
        del self._engine, root
        gc.collect()
        return_freed_memory()


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
