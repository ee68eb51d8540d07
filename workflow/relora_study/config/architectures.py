"""The architectures that a size can have: decoders of transformers, described by what this package asks of them.

An entry of `ARCHITECTURES` is all that a new one needs. Its key is the `model_type` of transformers, which has the code
of the model, and `relora_study.model.decoder` finds the parts of a model by the entry.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, NamedTuple

from pydantic import AfterValidator, WithJsonSchema

ALL = "all"  # as a target: every linear map of a layer


class Part(NamedTuple):
    """Where a layer keeps a matrix that readings take: a linear map, or a share of the rows of each head's block.

    ``share`` (which, of how many) is for a map that computes queries, keys and values in one.
    """

    linear: str
    share: tuple[int, int] = (0, 1)

    @property
    def target(self) -> str:
        """Return the name by which a method targets the linear map."""
        return self.linear.rpartition(".")[2]


@dataclass(frozen=True)
class Architecture:
    """A decoder: the linear maps and norms of a layer, where its matrices by role are, and which shapes it can have.

    Widths are given by name: model (`d_model`), ffn (`intermediate_size`), head, queries (all heads together), keys
    (all key-value heads together) and qkv (queries, keys and values in one).
    """

    linears: Mapping[str, tuple[str, str]]
    """The widths of the input and the output of each linear map of a layer, by its place in the layer."""
    components: Mapping[str, Part]
    """w2 (from the feed-forward layer back to the residual stream), v and o (attention's values and output)."""
    norms: tuple[str, ...] = ("model", "model")
    """The widths of the norms of a layer."""
    biased: bool = False
    """Whether linear maps and norms have biases."""
    layers: str = "model.layers"
    """The place of the list of layers in the model."""
    shares_keys: bool = True
    """Whether there can be fewer key-value heads than attention heads."""
    sets_head_dim: bool = True
    """Whether the width of a head can be set apart from d_model."""
    rotated: float = 1.0
    """The share of a head that the rotary position embedding turns."""

    @property
    def targets(self) -> list[str]:
        """Return the names by which a method targets the linear maps of a layer, in the model's order."""
        return [place.rpartition(".")[2] for place in self.linears]


LLAMA = Architecture(
    linears={
        "self_attn.q_proj": ("model", "queries"),
        "self_attn.k_proj": ("model", "keys"),
        "self_attn.v_proj": ("model", "keys"),
        "self_attn.o_proj": ("queries", "model"),
        "mlp.gate_proj": ("model", "ffn"),
        "mlp.up_proj": ("model", "ffn"),
        "mlp.down_proj": ("ffn", "model"),
    },
    components={"w2": Part("mlp.down_proj"), "v": Part("self_attn.v_proj"), "o": Part("self_attn.o_proj")},
)
ARCHITECTURES = {
    "llama": LLAMA,
    "qwen3": replace(LLAMA, norms=("model", "model", "head", "head")),
    "olmo2": replace(LLAMA, norms=("model", "model", "queries", "keys"), sets_head_dim=False),
    "gpt_neox": Architecture(
        linears={
            "attention.query_key_value": ("model", "qkv"),
            "attention.dense": ("queries", "model"),
            "mlp.dense_h_to_4h": ("model", "ffn"),
            "mlp.dense_4h_to_h": ("ffn", "model"),
        },
        components={
            "w2": Part("mlp.dense_4h_to_h"),
            "v": Part("attention.query_key_value", (2, 3)),
            "o": Part("attention.dense"),
        },
        biased=True,
        layers="gpt_neox.layers",
        shares_keys=False,
        sets_head_dim=False,
        rotated=0.25,
    ),
}


def _targets() -> list[str]:
    return list(dict.fromkeys(name for known in ARCHITECTURES.values() for name in known.targets))


def _known_architecture(name: str) -> str:
    if name not in ARCHITECTURES:
        raise ValueError(f"no architecture; name one of {', '.join(ARCHITECTURES)}")
    return name


def _known_target(name: str) -> str:
    if name not in (known := [ALL, *_targets()]):
        raise ValueError(f"no linear map of an architecture; name one of {', '.join(known)}")
    return name


ArchitectureName = Annotated[
    str, AfterValidator(_known_architecture), WithJsonSchema({"type": "string", "enum": [*ARCHITECTURES]})
]
Target = Annotated[str, AfterValidator(_known_target), WithJsonSchema({"type": "string", "enum": [ALL, *_targets()]})]
