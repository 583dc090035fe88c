"""Quantizers trained with another package, carried over with all they have learned."""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from rvq_tutorial.quantizers import ResidualVectorQuantizer, VectorQuantizer
from rvq_tutorial.wrappers import Grouped, Projected

Converted = VectorQuantizer | ResidualVectorQuantizer | Projected | Grouped

KEYS = re.compile(
    r"(rvqs\.\d+\.)?(project_(in|out)\.(weight|bias)|(layers\.\d+\.)?_codebook\.(initted|cluster_size|embed|embed_avg))"
)


def from_vector_quantize_pytorch(source: nn.Module | Mapping[str, Tensor], **settings: Any) -> Converted:
    """What vector-quantize-pytorch calls VectorQuantize, ResidualVQ or GroupedResidualVQ, as a quantizer of ours.

    In eval mode, `encode` and `decode` give what theirs gives (of two codewords equally near, either). Training goes on
    from the same moving averages, if with batches of about the same size. For what else differs, see
    docs/coming-from-vector-quantize-pytorch.md.

    Args:
        source: the module, or its state_dict. That says nothing of channel_dim, similarity, gradient and the like.
        settings: the quantizer's, where they aren't to be the module's, or the defaults in the case of a state_dict.

    Raises ValueError if it has what there is no counterpart for: several heads, cosines or a network between stages.
    """
    if isinstance(source, nn.Module):
        state = source.state_dict()
    elif isinstance(source, Mapping):
        state = dict(source)
    else:
        raise TypeError(f"source must be a module or its state_dict, got {type(source).__name__}")
    strange = [key for key in state if not KEYS.fullmatch(key)]
    if strange or not state:
        found = strange[0] if strange else "nothing"
        raise ValueError(f"source must be a quantizer of codebooks and linear projections alone, got {found}")
    if isinstance(source, nn.Module):
        settings = _settings(source) | settings
    quantizer = _quantizer(state, settings)
    return quantizer.train(source.training) if isinstance(source, nn.Module) else quantizer


def _settings(module: Any) -> dict[str, Any]:
    """Those of the module, in our words."""
    residual = module.rvqs[0] if hasattr(module, "rvqs") else module
    layer = residual.layers[0] if hasattr(residual, "layers") else residual
    codebook = layer._codebook
    if layer.heads > 1:
        raise ValueError(f"source must have one head, got heads = {layer.heads}")
    learned = "gradient" if layer.learnable_codebook else "ema" if codebook.ema_update else "none"
    # Theirs is a number of vectors for each batch, ours a share of the uniform number.
    uniform = float(codebook.cluster_size.sum()) / codebook.codebook_size
    settings = {
        "channel_dim": 1 if layer.accept_image_fmap or layer.accept_3d_fmap or not layer.channel_last else -1,
        "commitment_weight": layer.commitment_weight,
        "codebook_update": "none" if layer.freeze_codebook else learned,
        "decay": codebook.decay,
        "dead_code_threshold": min(1.0, codebook.threshold_ema_dead_code / uniform),
        "gradient": "rotation" if layer.rotation_trick else "straight-through",
    }
    if residual is layer:
        return settings | {"similarity": "cosine" if codebook.use_cosine_sim else "euclidean"}
    if codebook.use_cosine_sim:
        raise ValueError("source must not be residual by cosines, whose stages each see their residual at length 1")
    return settings | {"quantize_dropout": float(residual.quantize_dropout), "beam_size": residual.eval_beam_size or 1}


def _quantizer(state: dict[str, Tensor], settings: dict[str, Any]) -> Converted:
    if groups := _parts(state, "rvqs"):
        return Grouped([_quantizer(group, settings) for group in groups])
    layers = _parts(state, "layers")
    vectors, counts = zip(*(_codebook(layer) for layer in layers or [state]), strict=True)
    dim, sizes = vectors[0].shape[1], [len(each) for each in vectors]
    quantizer: VectorQuantizer | ResidualVectorQuantizer
    if layers:
        quantizer = ResidualVectorQuantizer(dim, sizes, len(sizes), **settings)
    else:
        quantizer = VectorQuantizer(dim, sizes[0], **settings)
    quantizer.to(vectors[0].device)
    for stage, codewords, count in zip(quantizer.stages, vectors, counts, strict=True):
        stage.load_state_dict({"vectors": codewords, "usage": count / count.sum(), "steps": torch.tensor(0)})
    return _projected(quantizer, state) if "project_in.weight" in state else quantizer


def _parts(state: dict[str, Tensor], name: str) -> list[dict[str, Tensor]]:
    """The entries below name.0., name.1., …, each without that."""
    parts: dict[int, dict[str, Tensor]] = {}
    for key, value in state.items():
        if key.startswith(f"{name}."):
            _, number, rest = key.split(".", 2)
            parts.setdefault(int(number), {})[rest] = value
    return [parts[number] for number in sorted(parts)]


def _codebook(state: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """A codebook's codewords, (K, dim), and how many vectors of a batch choose each, (K,)."""
    vectors, count = state["_codebook.embed"], state["_codebook.cluster_size"]
    if len(vectors) > 1:
        raise ValueError(f"source must have one head, got {len(vectors)}")
    if not state["_codebook.initted"]:
        raise ValueError("source must have codewords, but its kmeans_init still waits for the first batch")
    return vectors[0], count[0]


def _projected(quantizer: VectorQuantizer | ResidualVectorQuantizer, state: dict[str, Tensor]) -> Projected:
    size, dim = state["project_in.weight"].shape
    if size != quantizer.dim:
        raise ValueError(f"source must have one head, got {size // quantizer.dim}")
    projected = Projected(quantizer, dim).to(state["project_in.weight"].device)
    for name in ("project_in", "project_out"):
        projected.get_submodule(name).load_state_dict({key: state[f"{name}.{key}"] for key in ("weight", "bias")})
    return projected
