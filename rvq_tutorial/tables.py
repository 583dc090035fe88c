"""Squared distances to stored vectors, without decoding them.

Of a stored vector x̂ = Σₘ cₘ only the M indices are kept. Its squared distance to a query q is

    ‖q − x̂‖² = ‖q‖² − 2 Σₘ q·cₘ + ‖x̂‖²

A stage has only K products q·c, so one table holds them all; then a stored vector costs M look-ups and M additions.
‖x̂‖² is the same for every query: one number, kept with the indices. The query itself is never quantized, hence the
name of the method: asymmetric distance computation (ADC; Jégou et al. 2011, sec. III-A, for product quantizers;
Babenko & Lempitsky 2014 for sums of codewords, where ‖x̂‖² comes in).

Far from the origin, float32 would round the differences away. So q and x̂ are both measured from a typical codeword of
the first stage.
"""

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from rvq_tutorial.arguments import check_finite, check_floating, check_indices, check_whole
from rvq_tutorial.base import Quantizer
from rvq_tutorial.search import all_digits

# So many at a time: a CPU keeps their tables and their distances in its cache.
QUERIES = 64
STORED = 8192


@torch.no_grad()
def distance_tables(quantizer: Quantizer, queries: Tensor) -> list[Tensor]:
    """What each codeword contributes to the squared distance to each query: (Q, dim) → M tables, (Q, K + 1).

    Σₘ tables[m][:, indices[:, m]] + norms are the distances of Q queries to N stored vectors, where `norms` are those
    of StoredVectors. The last column, which index −1 picks, is for a stage that was skipped.

    Raises:
        TypeError, ValueError: `queries` is no finite floating-point matrix with dim columns.
    """
    check_floating(queries, "queries")
    if queries.ndim != 2 or queries.shape[1] != quantizer.dim:
        raise ValueError(f"queries must have shape (Q, dim) with dim = {quantizer.dim}, got {tuple(queries.shape)}")
    check_finite(queries, "queries")
    codebooks, origin = _codebooks(quantizer)
    queries = queries.to(origin.dtype) - origin
    with all_digits(queries.device), torch.autocast(queries.device.type, enabled=False):
        tables = [-2 * queries @ codebook.t() for codebook in codebooks]
    tables[0] += queries.square().sum(1, keepdim=True)
    return tables


class StoredVectors:
    """N vectors of which only the indices are kept, to be searched.

    Args:
        quantizer: whose indices they are. Its codewords must stay as they are from now on.
        indices: (N, M) or fewer stages, as `encode` gives them; of a VectorQuantizer's, (N, 1). Index −1 skips a stage.
            Any integer type will do: where K ≤ 256, uint8 takes one byte a stage.

    Raises:
        TypeError, ValueError: `indices` don't have this shape, or aren't indices of these codebooks.
    """

    norms: Tensor  # (N,): ‖x̂‖², from where distance_tables measures

    @torch.no_grad()
    def __init__(self, quantizer: Quantizer, indices: Tensor) -> None:
        codebooks, _ = _codebooks(quantizer)
        check_indices(indices, -1, max(map(len, codebooks)) - 2)
        if indices.ndim != 2 or not 1 <= indices.shape[1] <= len(codebooks):
            raise ValueError(f"indices must have shape (N, 1 to {len(codebooks)} stages), got {tuple(indices.shape)}")
        for index, codebook in zip(indices.unbind(1), codebooks, strict=False):
            check_indices(index, -1, len(codebook) - 2)
        self.quantizer = quantizer
        self.indices = indices
        self.norms = torch.cat([vectors.square().sum(1) for _, vectors in self._sums(codebooks)])

    def __len__(self) -> int:
        return len(self.indices)

    @torch.no_grad()
    def distances(self, queries: Tensor) -> Tensor:
        """Squared distances of queries to all stored vectors: (Q, dim) → (Q, N). Errors are distance_tables's."""
        distances = self.norms.new_empty(len(queries), len(self))
        for some, stored, part in self._parts(queries):
            distances[some, stored] = part
        return distances

    @torch.no_grad()
    def nearest(self, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """The k ≤ N stored vectors nearest to each query, best first, without a table of all Q × N distances.

        (Q, dim) → their squared distances, and their positions among the N, both (Q, k). Errors are distance_tables's.
        """
        check_whole(k, "k", high=len(self))
        distances = self.norms.new_full((len(queries), k), torch.inf)
        positions = torch.zeros_like(distances, dtype=torch.int64)
        for some, stored, part in self._parts(queries):
            # The best so far are the first k columns.
            distances[some], column = torch.cat([distances[some], part], 1).topk(k, largest=False)
            old = positions[some].gather(1, column.clamp_max(k - 1))
            positions[some] = torch.where(column < k, old, column - k + stored.start)
        return distances, positions

    def _parts(self, queries: Tensor) -> Iterator[tuple[slice, slice, Tensor]]:
        """Yield some queries, some of the stored vectors, and the distances between them."""
        tables = distance_tables(self.quantizer, queries)
        for start in range(0, len(queries), QUERIES):
            some = slice(start, start + QUERIES)
            for stored, sums in self._sums([table[some].t() for table in tables]):
                yield some, stored, (sums + self.norms[stored].unsqueeze(1)).clamp_min_(0).t()

    def _sums(self, tables: Sequence[Tensor]) -> Iterator[tuple[slice, Tensor]]:
        """Yield some of the stored vectors, and the sum of the rows that they pick from tables (K + 1, D): (n, D)."""
        num_stages = self.indices.shape[1]
        rows = torch.cat([table.roll(1, 0) for table in tables[:num_stages]])  # what −1 picks comes first
        first = torch.tensor([0, *(len(table) for table in tables)][:num_stages], device=rows.device).cumsum(0) + 1
        for start in range(0, max(len(self), 1), STORED):
            stored = slice(start, start + STORED)
            yield stored, F.embedding_bag(self.indices[stored].int() + first.int(), rows, mode="sum")


def _codebooks(quantizer: Quantizer) -> tuple[list[Tensor], Tensor]:
    """Each stage's codewords and, last, what index −1 adds: (K + 1, dim); and the origin, taken off the first stage."""
    vectors = [stage.vectors for stage in quantizer.stages]
    codebooks = [F.pad(v.to(torch.promote_types(v.dtype, torch.float32)), (0, 0, 0, 1)) for v in vectors]
    origin = codebooks[0][:-1].median(0).values
    codebooks[0] -= origin
    return codebooks, origin
