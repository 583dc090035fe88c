"""Nearest-codeword search: every trick for speed lives here, and nowhere else.

To rank codewords, ‖x − c‖² can be replaced by ½‖c‖² − x·c: expand the square, leave out ‖x‖² (the same for every
codeword), halve the rest. What remains is one matrix product. Around it:

- Some rows at a time, in one reused buffer: the whole (N, K) table of distances never exists.
- A typical codeword is first taken off both sides: far from the origin, float32 would round the differences away. The
  median, not the mean: one stray codeword far out must not carry the centre away from all the others.
- Even so, float32 is too coarse where codewords crowd together far from the centre, as in two clusters far apart: of
  ‖x‖² it keeps seven digits. Some vectors' distances to their choice tell, and then float64 searches anew. On a CPU
  only: an accelerator's searches run ahead of the program, which would have to wait for each of them to ask.
- All digits of float32 are used, whatever torch.set_float32_matmul_precision allows to other products.
- On a CPU, torch's argmin walks along a row one number at a time, NumPy's takes sixteen.

Few vectors, as when a signal is coded while it comes in, don't pay for all that. Their distances are taken as they are
defined, difference by difference, which is exact wherever they lie.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock

import torch
from torch import Tensor

from rvq_tutorial import export

FEW_VECTORS = 4  # up to so many, or to so many differences, are compared by the definition
FEW_DIFFERENCES = 2**18
TYPICAL_CODEWORDS = 64  # so many of them say enough about where they all lie
BUFFER = 2**20  # scores at a time: 4 MB, which a CPU keeps in its cache
ACCELERATOR_BUFFER = 2**26
SAMPLE = 256  # so many vectors tell whether float32 is too coarse
COARSE = 100  # ‖x‖ over ‖x − codeword‖ from which on it is: rounding would come to a thousandth of the latter's square
ONE_AT_A_TIME = Lock()  # for threads that change torch's settings


def nearest(x: Tensor, codebook: Tensor) -> Tensor:
    """Index of the nearest codeword by Euclidean distance: (..., dim), (K, dim) → (...), int64.

    Searches in float32 at least, whatever the inputs' types, autocast and torch.set_float32_matmul_precision say. The
    choice has no gradient.

    Raises:
        ValueError: the codebook is no (K, dim) matrix with K ≥ 1, or x has another dim.
    """
    if codebook.ndim != 2 or len(codebook) == 0:
        raise ValueError(f"codebook must have shape (K, dim) with K ≥ 1, got {tuple(codebook.shape)}")
    if x.ndim == 0 or x.shape[-1] != codebook.shape[1]:
        raise ValueError(f"x must have size dim = {codebook.shape[1]} along its last axis, got shape {tuple(x.shape)}")
    search = export.nearest if export.is_wanted() else _nearest
    return search(x.detach().reshape(-1, x.shape[-1]), codebook.detach()).view(x.shape[:-1])


def nearest_ways(residuals: Tensor, codebook: Tensor, beam_size: int) -> tuple[Tensor, Tensor]:
    """The best ways to quantize any of B residuals: (N, B, dim), (K, dim) → parent, index: (N, beam), best first.

    A way pairs a residual (its `parent`, 0 to B − 1) with a codeword (its `index`); the best leaves the smallest
    ‖residual − codeword‖. Where only B·K < `beam_size` ways exist, all are returned.
    """
    search = export.nearest_ways if export.is_wanted() else _nearest_ways
    ways = search(residuals.detach(), codebook.detach(), beam_size)
    return ways // len(codebook), ways % len(codebook)


# As operators of their own, the loops below are one opaque step to torch.compile.


@torch.library.custom_op("rvq_tutorial::nearest", mutates_args=())
def _nearest(x: Tensor, codebook: Tensor) -> Tensor:
    if _are_few(x, codebook):
        return _argmin(_distances(x, codebook))
    centre = _centre(x, codebook)
    indices = _nearest_from(centre, x, codebook)
    if x.device.type == "cpu" and centre.dtype == torch.float32 and _is_coarse(centre, x, codebook, indices):
        return _nearest_from(centre.double(), x, codebook)
    return indices


def _nearest_from(centre: Tensor, x: Tensor, codebook: Tensor) -> Tensor:
    indices = x.new_empty(len(x), dtype=torch.int64)
    for rows, _, scores in _scores(centre, x, codebook):
        indices[rows] = _argmin(scores)
    return indices


def _is_coarse(centre: Tensor, x: Tensor, codebook: Tensor, indices: Tensor) -> bool:
    """Are the vectors so much nearer to their codewords than to the centre that float32 can't tell codewords apart?"""
    some = slice(None, None, len(x) // SAMPLE + 1)
    x, chosen = x[some].to(centre.dtype), codebook[indices[some]].to(centre.dtype)
    return torch.dist(x, centre).item() > COARSE * torch.dist(x, chosen).item()


@torch.library.custom_op("rvq_tutorial::nearest_ways", mutates_args=())
def _nearest_ways(residuals: Tensor, codebook: Tensor, beam_size: int) -> Tensor:
    num, width, _ = residuals.shape
    ways = residuals.new_empty(num, min(beam_size, width * len(codebook)), dtype=torch.int64)
    x, num_ways = residuals.flatten(0, 1), width * len(codebook)
    if _are_few(x, codebook):
        _best_ways(_distances(x, codebook).view(-1, num_ways), out=ways)
        return ways
    for rows, centred, scores in _scores(_centre(x, codebook), x, codebook, group=width):
        scores += centred.square().sum(1, keepdim=True) / 2  # between different residuals, their own norm counts too
        _best_ways(scores.view(-1, num_ways), out=ways[rows.start // width : rows.stop // width])
    return ways


def _best_ways(scores: Tensor, out: Tensor) -> None:
    """Where each row of the table has its smallest scores, best first: (rows, beam). They become +inf."""
    for column in out.unbind(1):
        column.copy_(_argmin(scores))
        scores.scatter_(1, column.unsqueeze(1), torch.inf)  # taken: the next best, please


@_nearest.register_fake
def _(x: Tensor, codebook: Tensor) -> Tensor:
    return x.new_empty(x.shape[0], dtype=torch.int64)  # len(x) would fix the batch size of an exported graph


@_nearest_ways.register_fake
def _(residuals: Tensor, codebook: Tensor, beam_size: int) -> Tensor:
    num, width, _ = residuals.shape
    return residuals.new_empty(num, min(beam_size, width * len(codebook)), dtype=torch.int64)


def _are_few(x: Tensor, codebook: Tensor) -> bool:
    return len(x) <= FEW_VECTORS or x.numel() * len(codebook) <= FEW_DIFFERENCES


def _distances(x: Tensor, codebook: Tensor) -> Tensor:
    """‖x − c‖ by the differences themselves, with no product of matrices: (N, K)."""
    dtype = _search_dtype(x, codebook)
    return torch.cdist(x.to(dtype), codebook.to(dtype), compute_mode="donot_use_mm_for_euclid_dist")


def _search_dtype(x: Tensor, codebook: Tensor) -> torch.dtype:
    return torch.promote_types(torch.promote_types(x.dtype, codebook.dtype), torch.float32)


def _centre(x: Tensor, codebook: Tensor) -> Tensor:
    """A typical codeword, in the type to search in."""
    some = codebook[:: len(codebook) // TYPICAL_CODEWORDS + 1].to(_search_dtype(x, codebook))
    return some.sort(0).values[(len(some) - 1) // 2]  # deterministic algorithms have no median on a GPU


def _scores(centre: Tensor, x: Tensor, codebook: Tensor, group: int = 1) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Yield some rows, a multiple of `group`, x there with the centre taken off, and their scores ½‖c‖² − x·c.

    Both are in the centre's type, and live in buffers that the next step overwrites.
    """
    codebook = codebook.to(centre.dtype) - centre
    half_norms = codebook.square().sum(1) / 2
    transposed = codebook.t().contiguous()

    buffer_size = BUFFER if x.device.type == "cpu" else ACCELERATOR_BUFFER
    step = max(1, buffer_size // (len(codebook) * group)) * group
    buffer = codebook.new_empty(min(step, len(x)), len(codebook))
    x_buffer = codebook.new_empty(len(buffer), x.shape[1])
    for start in range(0, len(x), step):
        rows = slice(start, min(start + step, len(x)))
        num = rows.stop - start
        centred = torch.sub(x[rows], centre, out=x_buffer[:num])
        with all_digits(x.device):
            scores = torch.addmm(half_norms, centred, transposed, alpha=-1, out=buffer[:num])
        yield rows, centred, scores


@contextmanager
def all_digits(device: torch.device) -> Iterator[None]:
    """Multiply matrices as if nobody had allowed fewer digits. For this process, so one thread at a time may."""
    read: Callable[[], str]
    write: Callable[[str], None]
    if hasattr(torch.backends.cuda.matmul, "fp32_precision"):
        settings = (torch.backends.mkldnn if device.type == "cpu" else torch.backends.cuda).matmul
        read, write = lambda: settings.fp32_precision, lambda value: setattr(settings, "fp32_precision", value)
        full = "ieee"
    else:  # before torch 2.9
        read, write, full = torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, "highest"

    with ONE_AT_A_TIME:
        before = read()
    if before in (full, "none"):  # "none": nothing was allowed
        yield
        return
    with ONE_AT_A_TIME:
        write(full)
        try:
            yield
        finally:
            write(before)


def _argmin(scores: Tensor) -> Tensor:
    """argmin(1) of a (rows, columns) table."""
    return torch.from_numpy(scores.numpy().argmin(1)) if scores.device.type == "cpu" else scores.argmin(1)
