"""What the quantizers with codebooks share: their settings, checked, and what they return."""

import inspect
import math
import warnings
from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from rvq_tutorial import processes
from rvq_tutorial.arguments import check_first_pass, check_one_of, check_range, check_whole
from rvq_tutorial.codebook import Codebook, CodebookUpdate, Similarity
from rvq_tutorial.gradients import CARRY, Gradient
from rvq_tutorial.layout import VectorLayer

FROZEN = {"codebook_update": "none"}


class QuantizerOutput(NamedTuple):
    """What a quantizer returns. The losses are means over all that was quantized, so no batch size changes them.

    They have the codebook's dtype, float32 at least. Without any vectors they are zero.
    """

    quantized: Tensor  # shape and dtype of x
    indices: Tensor  # int64; x's shape without the channel dim (residual: one more axis, last, of size M); −1: none
    codebook_loss: Tensor  # scalar: pulls the codewords to the vectors; zero where an EMA moves them
    commitment_loss: Tensor  # scalar: pulls the vectors to their codewords
    loss: Tensor  # codebook_loss + commitment_weight · commitment_loss
    stage_losses: Tensor  # (M,), to look at, without gradient: the mean squared error that each stage leaves


class Quantizer(VectorLayer):
    """M codebooks and their settings; `VectorQuantizer` says what each setting means."""

    def __init__(
        self,
        dim: int,
        codebook_sizes: Sequence[int],
        channel_dim: int,
        commitment_weight: float,
        codebook_update: CodebookUpdate,
        decay: float,
        dead_code_threshold: float,
        gradient: Gradient,
        similarity: Similarity,
    ) -> None:
        check_whole(dim, "dim")
        for codebook_size in codebook_sizes:
            check_whole(codebook_size, "codebook_size")
        check_range(commitment_weight, "commitment_weight", 0, math.inf)
        check_range(decay, "decay", 0, 1)
        check_range(dead_code_threshold, "dead_code_threshold", 0, 1)
        check_one_of(codebook_update, "codebook_update", "ema", "gradient", "none")
        check_one_of(gradient, "gradient", *CARRY)
        check_one_of(similarity, "similarity", "euclidean", "cosine")
        if similarity == "cosine" and codebook_update == "gradient":
            raise ValueError('similarity="cosine" needs codebook_update="ema" or "none": optimizers leave the sphere')
        super().__init__(dim, channel_dim)
        self.codebook_sizes = tuple(codebook_sizes)
        self.bits = sum(map(math.log2, codebook_sizes))
        self.commitment_weight = commitment_weight
        self.gradient = gradient
        settings = (codebook_update, decay, dead_code_threshold, similarity)
        stages = nn.ModuleList(Codebook(dim, size, *settings) for size in codebook_sizes)
        self.stages = cast(Sequence[Codebook], stages)
        self._may_be_random = True

    @property
    def codebook_update(self) -> CodebookUpdate:
        return self.stages[0].codebook_update

    @property
    def decay(self) -> float:
        return self.stages[0].decay

    @property
    def dead_code_threshold(self) -> float:
        return self.stages[0].dead_code_threshold

    @property
    def similarity(self) -> Similarity:
        return self.stages[0].similarity

    @property
    def process_group(self) -> "dist.ProcessGroup | None":
        """The processes of torch.distributed that learn these codebooks together; None: all of them."""
        return self.stages[0].members.group

    @process_group.setter
    def process_group(self, group: "dist.ProcessGroup | None") -> None:
        for stage in self.stages:
            stage.members = processes.Members(group)

    @property
    def is_started(self) -> bool:
        """Are its codewords more than random: fitted, given or learned?"""
        return any(stage.is_started for stage in self.stages)

    def extra_repr(self) -> str:
        """Every setting that isn't the usual one."""
        settings = inspect.signature(type(self)).parameters
        told = {name: getattr(self, name) for name, each in settings.items() if getattr(self, name) != each.default}
        return ", ".join(f"{name}={value!r}" for name, value in told.items())

    def _start(self, codebooks: Sequence[Tensor]) -> None:
        """Begin with these codewords, (K, dim) for each stage, each of them used like any other."""
        self.to(codebooks[0].device, torch.promote_types(codebooks[0].dtype, torch.float32))
        for stage, vectors in zip(self.stages, codebooks, strict=True):
            stage.start(vectors, 1 / len(vectors))

    def _vectors(self, x: Tensor, mask: Tensor | None = None, *, learning: bool = False) -> tuple[Tensor, torch.Size]:
        """What there is to quantize: x as rows, (N, dim), zeros where not `mask`; and x's shape without channels."""
        if learning and self.codebook_update != "none":
            check_first_pass()
        rows, shape = self._to_rows(x, self.stages[0].vectors.dtype, mask, finite=not learning)
        self._warn_if_random()
        return self._scaled(rows), shape

    def _vectors_to_fit(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """The vectors in x, padding left out, as rows (N, dim)."""
        rows, _ = self._to_rows(x, self.stages[0].vectors.dtype, mask)
        return self._scaled(rows if mask is None else rows[mask.flatten()]).detach()

    def _scaled(self, rows: Tensor) -> Tensor:
        return F.normalize(rows, dim=-1) if self.similarity == "cosine" else rows

    def _warn_if_random(self) -> None:
        """Once, where one would otherwise train from random codewords, or measure them, unawares."""
        if self._may_be_random and not torch.compiler.is_compiling():
            self._may_be_random = False
            if not self.is_started:
                message = f"{type(self).__name__} has random codewords: call its fit(x) before you use it"
                warnings.warn(message, stacklevel=2)

    def _output(
        self, quantized: Tensor, indices: Tensor, codebook_loss: Tensor, commitment_loss: Tensor, stage_losses: Tensor
    ) -> QuantizerOutput:
        if self.codebook_update != "gradient":
            codebook_loss = torch.zeros_like(codebook_loss)
        loss = codebook_loss + self.commitment_weight * commitment_loss
        return QuantizerOutput(quantized, indices, codebook_loss, commitment_loss, loss, stage_losses.detach())


def squared_norm(x: Tensor) -> Tensor:
    """The sum of all squares, in float32 at least, without a table of them."""
    x = x.to(torch.promote_types(x.dtype, torch.float32)).flatten()
    return x.dot(x)
