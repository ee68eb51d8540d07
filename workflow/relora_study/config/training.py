"""Sections about models and training: shapes, methods, the recipe, and the machine."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from .architectures import ARCHITECTURES, Architecture, ArchitectureName
from .fields import (
    Betas,
    NonNegativeNumber,
    PositiveInt,
    PositiveNumber,
    PositiveSteps,
    Section,
    Sequences,
    Steps,
    Unit,
    at_default,
    is_none,
)


class Model(Section):
    """Settings of the model that all sizes share."""

    vocab_size: Annotated[int, Field(ge=257), Unit("tokens")]
    """Entries of the vocabulary; a tokenizer that the study trains has at most as many."""
    context_length: Annotated[int, Field(ge=2), Unit("tokens")]
    """Tokens of a sequence."""
    rms_norm_eps: PositiveNumber
    """Added to the mean square in RMSNorm."""
    rope_theta: PositiveNumber
    """Base of the rotary position embedding's wavelengths."""
    initialization: Literal["pytorch", "normal"]
    """pytorch (Embedding N(0,1), Linear kaiming-uniform) | normal (deviation 0.02)."""


class Recipe(Section):
    """Keys of `train` that a size, a method, or a method at one size can override; null overrides nothing."""

    learning_rate: Annotated[PositiveNumber | None, Field(exclude_if=is_none)] = None
    """Peak learning rate, in place of the one in `train`."""
    betas: Annotated[Betas | None, Field(exclude_if=is_none)] = None
    """Adam's decay rates of the two moments, in place of those in `train`."""
    eps: Annotated[PositiveNumber | None, Field(exclude_if=is_none)] = None
    """Adam's epsilon, in place of the one in `train`."""
    weight_decay: Annotated[NonNegativeNumber | None, Field(exclude_if=is_none)] = None
    """AdamW's weight decay, in place of the one in `train`."""
    gradient_clipping: Annotated[PositiveNumber | None, Field(exclude_if=is_none)] = None
    """Largest norm of the gradient, in place of the one in `train`; a huge one never clips."""

    @property
    def overrides(self) -> dict[str, Any]:
        """Return the keys of `train` that are set here, with their values."""
        return {key: getattr(self, key) for key in Recipe.model_fields if getattr(self, key) is not None}


class Size(Recipe):
    """The architecture and the shape of a decoder, in the terms of transformers' configurations."""

    architecture: Annotated[ArchitectureName, at_default("llama")] = "llama"
    """llama | qwen3 | olmo2 | gpt_neox: the decoder (docs/methods.md, "Architectures")."""
    d_model: PositiveInt
    """Width of the residual stream."""
    intermediate_size: PositiveInt
    """Width of the feed-forward layer."""
    num_hidden_layers: PositiveInt
    """Decoder layers."""
    num_attention_heads: PositiveInt
    """Attention heads of a layer."""
    num_key_value_heads: PositiveInt
    """Key and value heads that the attention heads share (grouped-query attention)."""
    head_dim: Annotated[PositiveInt | None, at_default(None)] = None
    """Width of an attention head; null: d_model / num_attention_heads."""

    @property
    def decoder(self) -> Architecture:
        """Return the description of the size's architecture."""
        return ARCHITECTURES[self.architecture]

    @property
    def widths(self) -> dict[str, int]:
        """Return the widths by the names that an architecture gives them."""
        head = self.head_dim or self.d_model // self.num_attention_heads
        queries, keys = (heads * head for heads in (self.num_attention_heads, self.num_key_value_heads))
        attention = {"head": head, "queries": queries, "keys": keys, "qkv": queries + 2 * keys}
        return {"model": self.d_model, "ffn": self.intermediate_size, **attention}

    @property
    def linear_shapes(self) -> dict[str, tuple[int, int]]:
        """Return the input and output width of each linear map of a layer, by the name by which methods target it."""
        widths, decoder = self.widths, self.decoder
        shapes = ((widths[read], widths[made]) for read, made in decoder.linears.values())
        return dict(zip(decoder.targets, shapes, strict=True))

    def component_shape(self, component: str) -> tuple[int, int]:
        """Return the input and output width of w2, v or o."""
        part = self.decoder.components[component]
        read, made = self.linear_shapes[part.target]
        return read, made // part.share[1]

    @property
    def vector_numbers(self) -> int:
        """Return how many numbers the norms and biases of a layer have."""
        norms = sum(self.widths[name] for name in self.decoder.norms)
        return 2 * norms + sum(made for _, made in self.linear_shapes.values()) if self.decoder.biased else norms

    @property
    def smallest_dimension(self) -> int:
        """Return the smallest dimension of any linear map of a layer, which no rank of a projection can exceed."""
        return min(min(shape) for shape in self.linear_shapes.values())

    @property
    def shape(self) -> "Size":
        """Return the size without its recipe."""
        return self.without(*Recipe.model_fields)

    @model_validator(mode="after")
    def _divisible(self) -> Self:
        heads, groups, name = self.num_attention_heads, self.num_key_value_heads, self.architecture
        if self.head_dim is None and self.d_model % heads:
            raise ValueError(f"d_model {self.d_model} must be num_attention_heads {heads} times an even head size")
        if (self.widths["head"] * self.decoder.rotated) % 2:
            multiple = round(2 / self.decoder.rotated)
            raise ValueError(f"a head is {self.widths['head']} wide, and in {name} it must be a multiple of {multiple}")
        if heads % groups:
            raise ValueError(f"num_attention_heads {heads} must be a multiple of num_key_value_heads {groups}")
        if heads != groups and not self.decoder.shares_keys:
            raise ValueError(f"num_key_value_heads {groups} must be {heads}: heads of {name} share no keys")
        if self.head_dim is not None and not self.decoder.sets_head_dim:
            raise ValueError(
                f"head_dim {self.head_dim} must be null: {name} has heads of d_model / num_attention_heads"
            )
        return self


class Train(Section):
    """The recipe that all methods and sizes share where they set nothing apart."""

    steps: Annotated[int, Field(gt=0, lt=10**6), Unit("optimizer steps")]  # checkpoints are named by six digits
    """Optimizer steps that each cell trains."""
    batch_size: Sequences
    """Sequences of an optimizer step."""
    micro_batch_size: Sequences
    """Sequences of a forward pass; gradients accumulate up to batch_size."""
    learning_rate: PositiveNumber
    """Peak learning rate."""
    betas: Betas
    """Adam's decay rates of the two moments."""
    eps: PositiveNumber
    """Adam's epsilon."""
    weight_decay: NonNegativeNumber
    """AdamW's weight decay, on all that trains."""
    gradient_clipping: Annotated[PositiveNumber | None, at_default(None)] = None
    """Largest norm of the gradient, of all that trains together; null: as it is.

    A longer gradient of an optimizer step is scaled down to this norm, as `torch.nn.utils.clip_grad_norm_` does.
    """
    checkpoint_every: PositiveSteps
    """Optimizer steps between evaluated checkpoints; step 0 and the last are always kept."""
    checkpoint_offset: Steps
    """Optimizer steps from each multiple of a reset period to one more checkpoint.

    Readings of adapters after a restart need it.
    """
    state_every: PositiveSteps
    """Optimizer steps between the full states that a stopped run continues from."""
    divergence: Annotated[Literal["stop", "record"], at_default("record")] = "record"
    """record (the cell ends there, as a result) | stop (an error): numbers that are not finite.

    A loss, a gradient or a weight that is not finite ends a cell's training.
    """
    time_limit: Annotated[PositiveNumber | None, Unit("minutes")]
    """Minutes after which a cell's job saves its state and stops; the next run goes on.

    For schedulers (docs/cluster.md); null: no limit.
    """

    @property
    def sequences(self) -> int:
        """Return how many sequences a training reads."""
        return self.steps * self.batch_size

    @model_validator(mode="after")
    def _divisible(self) -> Self:
        if self.batch_size % self.micro_batch_size:
            raise ValueError(f"batch_size must be a multiple of micro_batch_size {self.micro_batch_size}")
        if self.checkpoint_offset >= self.checkpoint_every:
            raise ValueError(f"checkpoint_offset {self.checkpoint_offset} must be below checkpoint_every")
        return self


class Runtime(Section):
    """The machines and the precision of the jobs."""

    device: Literal["auto", "cpu", "cuda"]
    """auto (a GPU where there is one) | cpu | cuda."""
    precision: Literal["float32", "bfloat16"]
    """float32 | bfloat16 (autocast; weights and moments stay float32)."""
    processes: Annotated[PositiveInt, Unit("processes")]
    """Data-parallel processes of one training, which share batch_size.

    Each has a GPU or, on the CPU, a core.
    """
    nodes: Annotated[PositiveInt, Unit("machines")]
    """Machines that these processes are spread over; above 1 needs SLURM (docs/cluster.md)."""
    compile: bool
    """torch.compile: minutes of warm-up, worth it on a GPU."""
    release_memory: bool
    """Give freed memory back at once (Linux, CPU).

    It saves a tenth to a sixth of the memory at the paper's small shape, and costs up to a seventh of the speed.
    """
    tensorboard: Annotated[bool, at_default(False)] = False
    """Write log.csv as event files for TensorBoard, too (`pip install tensorboard`)."""

    @property
    def processes_per_node(self) -> int:
        """Return how many of a training's processes run on each node."""
        return self.processes // self.nodes

    @model_validator(mode="after")
    def _even(self) -> Self:
        if self.processes % self.nodes:
            raise ValueError(f"processes {self.processes} must be a multiple of nodes {self.nodes}")
        return self
