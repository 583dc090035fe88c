"""A trained autoencoder in a file, and the one that ships with the course.

The file is safetensors: tensors by name, and beside them, as text, the settings to build the modules from. Nothing in
it is ever executed.
"""

import hashlib
import json
from inspect import signature
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from rvq_tutorial.autoencoder.files import write_whole
from rvq_tutorial.autoencoder.models import VQVAE, Decoder, Encoder
from rvq_tutorial.autoencoder.prior import IndexPrior
from rvq_tutorial.quantizers import ResidualVectorQuantizer

PHOTOS = Path(__file__).parent / "weights" / "photos.safetensors"  # beside it lies its model card
FORMAT = "rvq_tutorial 1"

# What each part is built from; every name is also an attribute of the part.
PARTS = {
    "encoder": (Encoder, ("in_channels", "dim", "width", "stride", "num_blocks")),
    "quantizer": (ResidualVectorQuantizer, tuple(signature(ResidualVectorQuantizer).parameters)),
    "decoder": (Decoder, ("out_channels", "dim", "width", "stride", "num_blocks")),
}


def save(path: str | Path, model: VQVAE, prior: IndexPrior) -> None:
    """Write a model and the prior of its indices to a file: whole or not at all.

    The model is made of `models.Encoder`, `ResidualVectorQuantizer` and `models.Decoder`.

    Raises:
        TypeError: a part of the model is of another class.
    """
    settings = {}
    for name, (kind, arguments) in PARTS.items():
        part = getattr(model, name)
        if type(part) is not kind:
            raise TypeError(f"model must have a {kind.__name__} as its {name}, got {type(part).__name__}")
        settings[name] = {argument: getattr(part, argument) for argument in arguments}
    both = nn.ModuleDict({"model": model, "prior": prior})
    tensors = {name: tensor.contiguous() for name, tensor in both.state_dict().items()}

    metadata = {"format": FORMAT, "settings": json.dumps(settings), "sha256": _sha256(tensors)}
    write_whole(Path(path), to_bytes(tensors, metadata))


def load(path: str | Path | None = None) -> tuple[VQVAE, IndexPrior]:
    """The model of a file that `save` wrote, in eval mode, and its prior; by default the model for photographs.

    Raises:
        FileNotFoundError, ValueError: there is no such file, it is damaged, or `save` did not write it.
    """
    path = PHOTOS if path is None else Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"path must name a model file; there is no file {path}")
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"path must name a whole model file; {path} is damaged or no safetensors file") from error
    if metadata.get("format") != FORMAT:
        raise ValueError(f"path must name a model file of format {FORMAT!r}, got {metadata.get('format')!r} in {path}")

    if metadata.get("sha256") != _sha256(tensors):
        raise ValueError(f"path must name a whole model file; {path} is damaged: its checksum is wrong")
    try:
        settings = json.loads(metadata["settings"])
        model = VQVAE(**{name: kind(**settings[name]) for name, (kind, _) in PARTS.items()})
        prior = IndexPrior(model.quantizer.codebook_size, model.quantizer.num_quantizers)
        nn.ModuleDict({"model": model, "prior": prior}).load_state_dict(tensors)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"path must name a whole model file; the tensors and settings in {path} don't fit") from error
    return model.eval(), prior


def _sha256(tensors: dict[str, Tensor]) -> str:
    """One checksum of all tensors, in the order of their names."""
    checksum = hashlib.sha256()
    for name in sorted(tensors):
        checksum.update(name.encode() + tensors[name].cpu().numpy().tobytes())
    return checksum.hexdigest()
