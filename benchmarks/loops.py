"""Training loops that `benchmarks.throughput` compares: each trains the model in a directory on the same tokens.

`ours` and `learning` are this project's own: engines and steps as a run has them, its hooks left out. The others are
written as their libraries' guides write them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.turns import Turns

LEARNING_RATE, BETAS, EPSILON, WEIGHT_DECAY, CLIPPING = 1e-4, (0.9, 0.95), 1e-8, 0.1, 1.0
_MANY = 10**6
"""More steps than anybody takes."""


@dataclass(frozen=True)
class Work:
    """What a loop trains, and on what.

    Attributes:
        directory: of the model, in Hugging Face's format.
        size: of the model, as the configuration writes it; `vocab` beside.
        length: tokens of a sequence.
        sequences: of a rank in a step.
        precision: `bf16` or `fp32`.
        rank, world_size: this rank among all.
        device: it computes on.
    """

    directory: str
    size: dict[str, int]
    length: int
    sequences: int
    precision: str
    rank: int
    world_size: int
    device: torch.device

    @property
    def dtype(self) -> torch.dtype:
        return torch.bfloat16 if self.precision == "bf16" else torch.float32

    def batches(self) -> Iterator[dict[str, Tensor]]:
        """This rank's part of each step's batch."""
        samples = RandomTokens(self.size["vocab"], self.length)
        for step in range(_MANY):
            first = (step * self.world_size + self.rank) * self.sequences
            yield samples.read([], range(first, first + self.sequences))


@dataclass(frozen=True)
class RandomTokens:
    """Sequences of random tokens, each a function of its number: the samples of an endless corpus."""

    labelled: ClassVar[bool] = True

    vocab: int
    length: int

    @property
    def tokens_per_sample(self) -> int:
        return self.length

    def __len__(self) -> int:
        return 1 << 30

    def weights(self, indices: Any) -> Any:
        return np.ones(len(indices), dtype=np.int64)

    def read(self, indices: Any, draws: Any) -> dict[str, Tensor]:
        """The sequences numbered `draws`; in their order, so that all loops see the same."""
        tokens = torch.stack([self._sequence(int(draw)) for draw in draws])
        return {"input_ids": tokens, "labels": tokens.clone()}

    def finish(self, inputs: Any) -> Any:
        return inputs

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        return {name: tensor[0] for name, tensor in self.read([], [number]).items()}

    def _sequence(self, number: int) -> Tensor:
        return torch.randint(self.vocab, (self.length,), generator=torch.Generator().manual_seed(number))


def ours(work: Work, turns: Turns) -> None:
    """A training phase of this project."""
    _take_phase(work, turns, learns=False)


def learning(work: Work, turns: Turns) -> None:
    """A learning phase of this project: the operator from a model of half the width and half the layers."""
    _take_phase(work, turns, learns=True)


def _take_phase(work: Work, turns: Turns, *, learns: bool) -> None:
    from ligo_dist.config import config_from
    from ligo_dist.corpus import Batches
    from ligo_dist.engine import start_world
    from ligo_dist.growth import SourceShards, initial_operator_shards
    from ligo_dist.schedule import Plan
    from ligo_dist.training import Builder, training_steps

    world = start_world(3600)
    plan = Plan.of(config_from(_configuration(work, learns)), work.size["vocab"], world.size)
    builder = Builder(plan, world, {"bos_token_id": 1, "eos_token_id": 2}, {}, Path(work.directory))
    stage = plan.last
    if learns:
        grow = stage.grow
        assert grow is not None
        source = SourceShards.build(grow.growth, builder.random_shards(plan.stages[0]), world)
        engine, phase = builder.learning_engine(stage, grow, source), grow.learn
        start = initial_operator_shards(grow.growth, grow.method, builder.stream(stage), world)
        engine.write_shards(start)
    else:
        engine, phase = builder.model_engine(stage), stage.train
        engine.write_shards(builder.first_shards(stage, print).items())
    samples = RandomTokens(work.size["vocab"], work.length)
    steps = training_steps(engine, Batches(samples, 0, phase.batch_size), phase, 0, seed=0)
    more = turns.wait()
    while more:
        more = turns.taken(partial(float, next(steps).result.loss))


def _configuration(work: Work, learns: bool) -> dict[str, Any]:
    size = {name: value for name, value in work.size.items() if name != "vocab"}
    optimizer = {"learning_rate": LEARNING_RATE, "betas": list(BETAS), "epsilon": EPSILON}
    optimizer |= {"weight_decay": WEIGHT_DECAY, "gradient_clipping": CLIPPING}
    schedule = {"kind": "constant"}
    train = {
        "steps": _MANY,
        "batch_size": work.sequences * work.world_size,
        "micro_batch_size": work.sequences,
        "optimizer": optimizer,
        "schedule": schedule,
    }
    stages: list[dict[str, Any]] = [{"name": "model", "size": size, "train": train}]
    if learns:
        half = {name: value // 2 for name, value in size.items()}
        learn = {"steps": _MANY, "optimizer": optimizer, "schedule": schedule}
        stages.insert(0, {"name": "source", "size": half, "train": {**train, "steps": 1}})
        stages[1]["grow"] = {"method": "ligo", "learn": learn}
    return {
        "run_dir": f"{work.directory}-run",
        "precision": work.precision,
        "model": {"family": "llama", "max_positions": work.length, "vocab_size": work.size["vocab"]},
        "stages": stages,
        "data": {"source": "stdlib", "sequence_length": work.length},
        "tokenizer": {"vocab_size": work.size["vocab"]},
    }


def _deepspeed_keys(work: Work) -> dict[str, Any]:
    """DeepSpeed's configuration of both loops that are not ours: its own defaults."""
    return {
        "train_micro_batch_size_per_gpu": work.sequences,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": CLIPPING,
        "steps_per_print": 10**12,
        "bf16": {"enabled": work.precision == "bf16"},
        "zero_optimization": {"stage": 3},
        "zero_force_ds_cpu_optimizer": False,
    }


def deepspeed(work: Work, turns: Turns) -> None:
    """A loop by hand around a Hugging Face model and a DeepSpeed ZeRO-3 engine."""
    import deepspeed as library
    from transformers import AutoModelForCausalLM
    from transformers.integrations import HfDeepSpeedConfig

    _skip_compiling(library)
    library.init_distributed("gloo" if work.device.type == "cpu" else None, verbose=False)
    keys = _deepspeed_keys(work)
    partitioned = HfDeepSpeedConfig(keys)  # for as long as it lives
    model = AutoModelForCausalLM.from_pretrained(work.directory, dtype=work.dtype, use_cache=False)
    engine, *_ = library.initialize(model=model, optimizer=_adamw(model, work), config=keys)
    del partitioned
    engine.train()

    def step(batch: dict[str, Tensor]) -> Tensor:
        loss = engine(**batch).loss
        engine.backward(loss)
        engine.step()
        return loss

    _loop(work, turns, step)


def trainer(work: Work, turns: Turns) -> None:
    """Hugging Face's Trainer with the same DeepSpeed configuration. Needs the package `accelerate`."""
    import deepspeed as library
    from transformers import AutoModelForCausalLM, Trainer, TrainerCallback, TrainingArguments

    _skip_compiling(library)
    arguments = TrainingArguments(
        output_dir=f"{work.directory}-trainer",
        deepspeed=_deepspeed_keys(work),
        bf16=work.precision == "bf16",
        use_cpu=work.device.type == "cpu",
        per_device_train_batch_size=work.sequences,
        max_steps=_MANY,
        learning_rate=LEARNING_RATE,
        lr_scheduler_type="constant",
        weight_decay=WEIGHT_DECAY,
        adam_beta1=BETAS[0],
        adam_beta2=BETAS[1],
        adam_epsilon=EPSILON,
        max_grad_norm=CLIPPING,
        train_sampling_strategy="sequential",
        logging_strategy="no",
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
    )

    class _Turns(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            control.should_training_stop = not turns.wait()

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            control.should_training_stop = not turns.taken(lambda: float(found.losses))

    class _Trainer(Trainer):
        losses: Any = float("nan")

        def training_step(self, *arguments: Any, **keys: Any) -> Tensor:
            self.losses = super().training_step(*arguments, **keys)
            return self.losses

    model = AutoModelForCausalLM.from_pretrained(work.directory, dtype=work.dtype, use_cache=False)
    samples: Any = RandomTokens(work.size["vocab"], work.length)
    found = _Trainer(model, arguments, train_dataset=samples, callbacks=[_Turns()])
    found.train()


def fsdp2(work: Work, turns: Turns) -> None:
    """A loop by hand around a Hugging Face model that torch's `fully_shard` has sharded, block by block."""
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
    from transformers import AutoModelForCausalLM

    _start_torch(work)
    model: Any = AutoModelForCausalLM.from_pretrained(work.directory, dtype=torch.float32, use_cache=False)
    model = model.to(work.device)
    policy = MixedPrecisionPolicy(param_dtype=work.dtype, reduce_dtype=torch.float32)
    for module in (*model.model.layers, model):
        fully_shard(module, mp_policy=policy)
    _plain_loop(model, work, turns)


def ddp(work: Work, turns: Turns) -> None:
    """A loop by hand around torch's DistributedDataParallel, which shards nothing; bf16 by autocast."""
    from torch.nn.parallel import DistributedDataParallel
    from transformers import AutoModelForCausalLM

    _start_torch(work)
    whole: Any = AutoModelForCausalLM.from_pretrained(work.directory, dtype=torch.float32, use_cache=False)
    model = DistributedDataParallel(whole.to(work.device), gradient_as_bucket_view=True)
    _plain_loop(model, work, turns, autocast=work.precision == "bf16")


def _plain_loop(model: nn.Module, work: Work, turns: Turns, *, autocast: bool = False) -> None:
    optimizer = _adamw(model, work)
    model.train()

    def step(batch: dict[str, Tensor]) -> Tensor:
        with torch.autocast(work.device.type, torch.bfloat16, enabled=autocast):
            loss = model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIPPING)
        optimizer.step()
        optimizer.zero_grad()
        return loss

    _loop(work, turns, step)


def _loop(work: Work, turns: Turns, step: Callable[[dict[str, Tensor]], Tensor]) -> None:
    batches = work.batches()
    more = turns.wait()
    while more:
        batch = {name: tensor.to(work.device) for name, tensor in next(batches).items()}
        more = turns.taken(step(batch).detach().item)


def _adamw(model: nn.Module, work: Work) -> torch.optim.Optimizer:
    return torch.optim.AdamW(
        model.parameters(),
        lr=LEARNING_RATE,
        betas=BETAS,
        eps=EPSILON,
        weight_decay=WEIGHT_DECAY,
        fused=work.device.type == "cuda",
    )


def _start_torch(work: Work) -> None:
    torch.distributed.init_process_group("gloo" if work.device.type == "cpu" else "nccl")


def _skip_compiling(library: Any) -> None:
    """DeepSpeed would compile an operation for inference when its ranks meet."""
    library.ops.__compatible_ops__["deepspeed_shm_comm"] = False


def device_of_rank() -> torch.device:
    """A GPU for each rank, or the processors where `DS_ACCELERATOR` says so."""
    if os.environ.get("DS_ACCELERATOR") == "cpu":
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ["LOCAL_RANK"]))


LOOPS: dict[str, Callable[[Work, Turns], None]] = {
    function.__name__: function for function in (ours, learning, deepspeed, trainer, fsdp2, ddp)
}
