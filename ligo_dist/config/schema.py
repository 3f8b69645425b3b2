"""What a configuration file may say. The docstring under a field *is* its documentation.

`docs/configuration.md` is generated from this file: `python -m ligo_dist.config.reference`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from ligo_dist.architectures import Architecture, get_architecture
from ligo_dist.config.cluster import Cluster
from ligo_dist.config.compare import Compare
from ligo_dist.config.data import Data, Tokenizer
from ligo_dist.config.harness import Harness
from ligo_dist.config.liger import Liger
from ligo_dist.config.profile import Profile
from ligo_dist.config.section import (
    Count,
    CountOrZero,
    Momentum,
    PathText,
    Positive,
    PositiveOrZero,
    Ratio,
    Section,
    Text,
)
from ligo_dist.runtime.redaction import redact_values


class Model(Section):
    """The model family and what all stages share."""

    family: Text
    """The model family: one of `ligo-dist architectures`, or `package.module:NAME` for a table of your own."""
    max_positions: Count | None = None
    """The longest sequence the model takes; for text. `null` only where `stages[0].from` says it. If that has fewer
    learned positions, the further ones begin with random values."""
    vocab_size: Count | None = None
    """Rows of the embedding, at least the tokenizer's pieces; for text. `null`: as `stages[0].from`, else the
    tokenizer's pieces. Rows that `stages[0].from` does not have begin with random values, also where its tokenizer has
    more pieces than it has rows; those beyond are left out."""
    patch_size: Count | None = None
    """Side of the square patches that an image is cut into, in pixels; for images. `null` only where
    `stages[0].from` says it."""
    tie_embeddings: bool | None = None
    """Whether the embedding is the output head too; `null`: as `stages[0].from`, else as the family does (gpt2
    yes, llama no)."""
    attention: Literal["auto", "eager", "sdpa", "flash_attention_2", "flex_attention"] = "auto"
    """How attention is computed in training, in the library's names; exports do not say it. `auto`: fused (`sdpa`)
    where the family has that, but on processors in bf16 plain (`eager`), which is faster there. `flash_attention_2`
    (the package flash-attn, bf16 alone) and `flex_attention` take an accelerator."""
    huggingface: dict[str, Any] = {}
    """More keys of the family's Hugging Face configuration class (`rope_theta`, `resid_pdrop`, `attention_bias`, ...).
    Keys that the size, the positions or the vocabulary set are refused, and so are those that say how a model is called
    and those that give it parameters that the family's table does not have."""


class Size(Section):
    """How large a stage's model is. The head size is the same in all stages."""

    layers: CountOrZero
    """Number of transformer blocks; 0: the embedding and the head alone."""
    width: Count
    """Size of the residual stream; a multiple of `heads`, unless `head_size` is given."""
    heads: Count
    """Number of attention (query) heads."""
    key_value_heads: Count | None = None
    """Number of key/value heads (grouped-query attention; families that have it), a divisor of `heads`;
    `null`: `heads`."""
    head_size: Count | None = None
    """Elements of a head (families that let it differ); `null`: `width / heads`."""
    ffn: Count | None = None
    """Inner width of the feed-forward block; `null`: the family's, gpt2 4 x `width`, llama 8/3 x `width`
    rounded up to a multiple of 8."""


class AdamW(Section):
    """AdamW. Norms and biases are never decayed."""

    learning_rate: Positive = 1.0e-3
    """The highest learning rate of the schedule."""
    betas: Annotated[tuple[Momentum, Momentum], Field(strict=False)] = (0.9, 0.95)
    """Decay of the running means of the gradient and of its square."""
    epsilon: Positive = 1.0e-8
    """Added to the denominator of the update."""
    weight_decay: PositiveOrZero = 0.1
    """Decoupled weight decay of the matrices."""
    gradient_clipping: PositiveOrZero = 1.0
    """Largest norm of the whole gradient; 0: no clipping."""


class Optimizer(AdamW):
    """AdamW, or Muon for the matrices of the blocks and AdamW for the rest."""

    kind: Literal["adamw", "muon"] = "adamw"
    """`adamw`; or `muon`: the 2-D weights of the blocks by Muon, with Nesterov's momentum (Jordan et al. 2024), and by
    AdamW the embeddings, heads, norms and biases. Updates of a matrix are scaled by 0.2 sqrt(its larger side), to the
    size of AdamW's (arXiv 2502.16982), so that the same `learning_rate` and `weight_decay` serve both."""
    muon_learning_rate: Positive | None = None
    """The highest learning rate of what Muon trains; `null`: `learning_rate`."""
    muon_momentum: Momentum | None = None
    """Decay of the running mean of the gradient in Muon; `null`: 0.95."""


class OperatorOptimizer(AdamW):
    """AdamW for the growth operator."""

    learning_rate: Positive = 3.0e-4
    """The highest learning rate of the schedule."""
    weight_decay: PositiveOrZero = 0.0
    """Decoupled weight decay of the operator's matrices."""


class Schedule(Section):
    """The learning rate over the optimizer steps of one phase."""

    kind: Literal["constant", "cosine", "linear", "wsd"] = "cosine"
    """The course after the warm-up. `constant`; `cosine` and `linear` fall until the last step; `wsd`
    (warm-up, stable, decay) stays, then falls linearly during the last `decay_steps`."""
    warmup_steps: CountOrZero = 0
    """Steps of linear rise from 0. After growing: the re-warm-up."""
    decay_steps: Count | None = None
    """Steps of the final fall; for `wsd`, and only there."""
    final_ratio: Ratio = 0.1
    """Learning rate at the end, as a part of the highest; unused by `constant`."""


class Train(Section):
    """How a stage's model is trained."""

    steps: CountOrZero
    """Optimizer steps; 0: the model is taken as it is."""
    batch_size: Count
    """Sequences per optimizer step, over all ranks: any number, but one for each rank at least. The result does not
    depend on how it is split; where it does not divide by the ranks and `micro_batch_size`, some compute goes into
    padding."""
    micro_batch_size: Count
    """The most sequences that one rank takes in one forward pass."""
    optimizer: Optimizer = Optimizer()
    """The optimizer."""
    schedule: Schedule = Schedule()
    """The learning rate."""
    activation_checkpointing: bool = False
    """Compute each block's activations again in the backward pass rather than keep them: less memory, a third
    more compute."""
    freeze: CountOrZero = 0
    """Steps at the stage's beginning that train new layers and units alone: what continues the source's layers and
    units stays as it is, moments too; of a grown stage whose operator is not learned. Their gradients are computed all
    the same, and counted as FLOPs."""
    new_rate: Positive = 1.0
    """Factor of the learning rate of new layers and units; of a grown stage whose operator is not learned."""


class Learn(Section):
    """How the growth operator is learned, on the loss of the grown model, before it is applied."""

    steps: CountOrZero | None = None
    """Optimizer steps; 0: the operator is applied as it starts; `null`: the method's own (ligo 100, others 0)."""
    batch_size: Count | None = None
    """Sequences per optimizer step, over all ranks; `null`: as the stage's `train`."""
    micro_batch_size: Count | None = None
    """The most sequences that one rank takes in one forward pass; `null`: as the stage's `train`."""
    optimizer: OperatorOptimizer = OperatorOptimizer()
    """The optimizer of the operator."""
    schedule: Schedule = Schedule()
    """The learning rate of the operator."""
    activation_checkpointing: bool | None = None
    """Compute each module's activations again in the backward pass rather than keep them; `null`: as the stage's
    `train`."""


class Grow(Section):
    """How a stage's model is made from the one before."""

    method: Text = "lossless-dense"
    """Where the growth operator starts: one of `ligo-dist methods`. It names a way to grow in depth and one to
    grow in width, which `depth` and `width` may replace."""
    depth: Text | None = None
    """How layers are made from layers: one of `ligo-dist methods`; `null`: the method's own."""
    width: Text | None = None
    """How the axes expand: one of `ligo-dist methods`; `null`: the method's own."""
    noise: PositiveOrZero = 0.0
    """Noise on the new rows of the width matrices, to break symmetry: its standard deviation relative to the
    root mean square of a matrix's rows. A method that keeps the function keeps it only with 0."""
    tied: bool | None = None
    """Whether an axis expands by one and the same matrix where it is read and where it is written (the
    paper's way); `null`: the method's own choice."""
    identity: Literal["fixed", "learned"] | None = None
    """Whether learning leaves the rows alone that carry the source's own units (the published code's way);
    `null`: the method's own choice."""
    share_depth: bool = False
    """One row of depth coefficients for all roles of a layer, rather than one per role."""
    share_width: bool = False
    """One operator per axis for all layers, rather than one per target layer."""
    optimizer_state: Literal["fresh", "grown", "asymmetric"] = "fresh"
    """The optimizer's moments after growing: `fresh` ones; `grown` from the source's by the same linear map (AdamW's
    second moments by its elementwise square); `asymmetric`: grown for the units that were there, zero for new ones.
    Where they are not fresh, both stages have the same `train.optimizer.kind`."""
    learn: Learn = Learn()
    """How the operator is learned."""


class StageData(Section):
    """What a stage is trained on."""

    weights: dict[str, PositiveOrZero] = {}
    """Weights of sources in `data.mixture`, by name, while this stage's operator is learned and its model trained: more
    of the best text in the last stage, say. A source that is left out keeps its own `weight`."""


class Stage(Section):
    """One stage: a model of one size, grown from the stage before (unless it is the first), then trained."""

    name: Text
    """The stage's name in logs, in tracking and in file names: letters, digits, `.`, `_`, `-`; each one
    once."""
    from_: Annotated[PathText | None, Field(alias="from")] = None
    """A Hugging Face directory, or a name on the hub, that holds the first stage's model; `null`: the first
    stage begins with random values."""
    size: Size | None = None
    """The size of its model; `null` only with `from`, whose configuration then says it."""
    grow: Grow | None = None
    """How it grows out of the stage before; absent in the first stage, present in every other one (`grow: {}`
    takes the defaults)."""
    train: Train | None = None
    """How it is trained; `null` only with `from`: the model is taken as it is."""
    data: StageData = StageData()
    """What it is trained on."""
    nodes: Count | None = None
    """Nodes that this stage asks for. A run that reaches it on fewer stops at the boundary, says so, and ends with
    exit code 76; the next launch on the same run directory takes what it is given. `null`: any number."""


class Defaults(Section):
    """What the stages inherit, key by key and at any depth; a stage's own keys win."""

    train: dict[str, Any] = {}
    """Keys of every stage's `train`."""
    grow: dict[str, Any] = {}
    """Keys of every stage's `grow`, from the second stage on."""


class Evaluation(Section):
    """The validation loss: over a fixed set of sequences, weighted by tokens."""

    every_steps: Count = 100
    """Optimizer steps between two evaluations; the end of each phase is always evaluated."""
    sequences: Count = 64
    """Sequences of the validation set that are used; of a mixture, of each source's."""
    micro_batch_size: Count = 8
    """Sequences that one rank takes in one forward pass."""
    compare_random: bool = True
    """Evaluate a randomly initialised model of the new size beside each grown one."""
    harness: Harness = Harness()
    """Tasks that exports are evaluated on."""


class Tracking(Section):
    """Where the metrics go. A JSON-lines file in the run directory is always written."""

    mlflow: bool = True
    """Track in MLflow: a parent run per schedule, a nested run per stage."""
    uri: PathText | None = None
    """MLflow tracking URI; `null`: the environment's `MLFLOW_TRACKING_URI`, else an SQLite file `mlflow.db`
    beside the run directory."""
    experiment: Text = "ligo_dist"
    """MLflow experiment."""
    run_name: Text | None = None
    """Name of the MLflow run; `null`: the run directory's name."""
    log_every_steps: Count = 10
    """Optimizer steps between two records of the training metrics."""
    system_metrics_every_seconds: Positive | None = 10
    """Least time between two records of every node's load: processors, memory, disk, network, accelerators. They come
    with the training metrics, so no more often than these. `null`: it is not recorded."""
    register_model: Text | None = None
    """Name in MLflow's model registry: the last stage's export becomes a version of it at the end, or where `mlflow` is
    false, when `ligo-dist sync` delivers the run. `null`: nothing is registered."""
    pictures: bool = True
    """Draw each stage: its learned operator, and at its end the curves of the run up to there."""


class Checkpoints(Section):
    """What is kept to resume from, and what is exported."""

    every_steps: Count = 100
    """Optimizer steps between two checkpoints; each phase's end has one too."""
    keep: Count = 2
    """Complete checkpoints that are kept: the newest."""
    keep_steps: list[CountOrZero] = []
    """Optimizer steps of the whole run after which a checkpoint is made and stays, beside the newest `keep`: for
    another run to begin from (`start_from`). Where a model is grown after such a step, the checkpoints before and
    after that stay both."""
    on_failure: Literal["stop", "continue"] = "stop"
    """What happens where one cannot be written (a full disk): the run stops, or goes on and tries again the next
    time. The last complete one stays either way."""
    export_stages: bool = False
    """Export every stage's model as a Hugging Face directory, not only the last one's."""


class Distributed(Section):
    """How the ranks work together."""

    timeout_seconds: Count = 600
    """How long a rank waits for the others before it gives up."""


class StartFrom(Section):
    """The checkpoint of another run that this run begins from, as if it had taken those steps itself: with weights,
    moments, data position, random numbers, recorded losses and FLOPs. What lies behind must be the same in both
    configurations: model, data, seed, the stages before, and of the stage it stands in size, growth and batch. What
    lies ahead is this one's own: steps, learning rates, further stages. Once the run has checkpoints of its own,
    nothing is read from there."""

    run: PathText
    """The other run's directory."""
    step: CountOrZero
    """Which checkpoint: the optimizer steps of the whole run that are done, as its name says. The other run's
    `checkpoints.keep_steps` keeps it."""
    stage: Text | None = None
    """Name of the stage that the checkpoint is of; needed where the step is the end of a stage and the beginning of the
    next one."""
    phase: Literal["learn", "train"] | None = None
    """Phase that the checkpoint is of; needed where the step is the end of `learn` and the beginning of `train`."""


class Config(Section):
    """One run: a list of stages, and everything they share. Paths are relative to the working directory."""

    run_dir: PathText
    """Where the run keeps its checkpoints, metrics and exports. Running again on the same directory
    resumes; docs/checkpoints.md says what may change then, and how a run is given more steps and stages."""
    start_from: StartFrom | None = None
    """A checkpoint of another run to begin from."""
    seed: CountOrZero = 0
    """Seed of the initial values, of the operator's start, of the order of the data, of dropout."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """Precision of the arithmetic; the weights being trained are kept in fp32 either way. `auto`: bf16 if every rank
    computes it natively (GPUs from compute capability 8.0 on; processors with AVX512-BF16 or AMX, on Arm with bf16),
    else fp32. A run keeps what it began with, wherever it goes on."""
    liger: Liger = Liger()
    """Which of Liger's fused kernels are used."""
    compile: bool = False
    """Train models whose blocks torch compiles: faster steps, for a minute or so at the beginning of each stage. It
    takes a C++ compiler, on GPUs too. Operators are learned without. The last digits of the losses change."""
    model: Model
    """The model family and what all stages share."""
    defaults: Annotated[Defaults, Field(exclude=True)] = Defaults()
    """What the stages inherit."""
    stages: Annotated[list[Stage], Field(min_length=1)]
    """The stages, in the order in which they run."""
    evaluation: Evaluation = Evaluation()
    """The validation loss."""
    data: Data
    """The corpus."""
    tokenizer: Tokenizer = Tokenizer()
    """The tokenizer."""
    deepspeed: dict[str, Any] = {}
    """Keys of a DeepSpeed configuration, or the path of a JSON file that holds them. They are merged into
    what the project sets; a key that contradicts it is an error."""
    tracking: Tracking = Tracking()
    """Where the metrics go."""
    checkpoints: Checkpoints = Checkpoints()
    """What is kept."""
    distributed: Distributed = Distributed()
    """How the ranks work together."""
    profile: Profile = Profile()
    """Which steps are profiled."""

    compare: Annotated[Compare, Field(exclude=True)] = Compare()
    """What `ligo-dist compare` runs. Not recorded with a run."""
    cluster: Annotated[Cluster, Field(exclude=True)] = Cluster()
    """The machines of the run, or the path of a YAML file that says them. Not recorded with the run."""

    @property
    def architecture(self) -> Architecture:
        """The family of its models."""
        return get_architecture(self.model.family)

    def resolved(self) -> dict[str, Any]:
        """The values for the record, and to compare on resume: without passwords and tokens."""
        return redact_values(self.values())

    def values(self) -> dict[str, Any]:
        """Everything as plain values, the stages with what they inherited."""
        return self.model_dump(mode="json", by_alias=True)
