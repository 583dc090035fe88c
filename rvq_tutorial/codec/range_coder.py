"""A range coder: a symbol that was expected with probability p takes about log2 1/p bits (Martin 1979).

All words together are the digits of one number. At first it may be any; each symbol leaves the part of the range that
is its own, as wide as the symbol is probable, and whoever reads sees in which part the number lies. To name a number in
a wide range takes few digits, so what was expected costs little.

The words are those of R. Bamler's library constriction, which we take where it can be installed: it is some eight times
as fast. All sums are of whole numbers, so every machine writes the same.
"""

from bisect import bisect_right

import numpy as np

STEPS = 2**24  # of which each symbol gets its share of the range, and one at the least
WORD = 2**32
WHOLE = WORD**2  # a range is kept in two words; once it fits into the lower one, the upper one is written


class Categorical:
    """Weights to probabilities: each symbol's share of the sum of all weights."""

    def __init__(self, perfect: bool) -> None:
        if perfect:
            raise ValueError("perfect must be False: shares are rounded down, got True")

    def edges(self, weights: np.ndarray) -> np.ndarray:
        """Where each symbol's share of the steps begins, and where the last ends: (n, K), float32 → (n, K + 1)."""
        size = weights.shape[1]
        edges = np.zeros((len(weights), size + 1), np.float32)
        weights.cumsum(1, out=edges[:, 1:])  # exact, as the weights are whole and together at most 2²⁴
        edges *= np.float32(STEPS - size) / edges[:, -1:]
        edges[:, -1] = STEPS - size
        return edges.astype(np.int32) + np.arange(size + 1, dtype=np.int32)


class RangeEncoder:
    """Symbols to words."""

    def __init__(self) -> None:
        self._words: list[int] = []
        self._low, self._width = 0, WHOLE - 1

    def encode(self, symbols: np.ndarray, model: Categorical, weights: np.ndarray) -> None:
        """Write symbols (n,), each of which has its row of the weights (n, K)."""
        rows, edges = np.arange(len(symbols)), model.edges(weights)
        starts, ends = edges[rows, symbols], edges[rows, symbols + 1]
        for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
            step = self._width // STEPS
            self._low += step * start
            self._width = step * (end - start)
            if self._low >= WHOLE:
                self._carry()
            if self._width < WORD:
                self._words.append(self._low // WORD)
                self._low, self._width = self._low % WORD * WORD, self._width * WORD

    def get_compressed(self) -> np.ndarray:
        """All words: with as few more as name a number in the range, whatever may follow them."""
        if self._width < WHOLE - 1:  # else there was nothing to write
            end = (self._low + self._width) // WORD % WORD
            self._low += WORD - 1
            self._carry()
            last = self._low // WORD
            self._words += [last, 0] if last == end else [last]
        return np.array(self._words, np.uint32)

    def _carry(self) -> None:
        """Add what the low end has beyond two words to the words already written."""
        carried, self._low = divmod(self._low, WHOLE)
        last = len(self._words) - 1
        while carried:
            carried, self._words[last] = divmod(self._words[last] + 1, WORD)
            last -= 1


class RangeDecoder:
    """Words to symbols; raises ValueError where no encoder writes such words."""

    def __init__(self, words: np.ndarray) -> None:
        self._words = iter(words.tolist())
        self._width = WHOLE - 1
        self._above = self._next() * WORD + self._next()  # how far above the range's low end the number lies

    def decode(self, model: Categorical, weights: np.ndarray) -> np.ndarray:
        """Read the symbols (n,) of which each has its row of the weights (n, K)."""
        symbols = []
        for edges in model.edges(weights):
            step = self._width // STEPS
            place = self._above // step
            if place >= STEPS:
                raise ValueError("words name a number beyond the range")
            symbol = bisect_right(edges, place) - 1
            start, end = edges[symbol : symbol + 2].tolist()
            self._above -= step * start
            self._width = step * (end - start)
            if self._width < WORD:
                self._above, self._width = self._above * WORD + self._next(), self._width * WORD
            symbols.append(symbol)
        return np.array(symbols, np.int32)

    def _next(self) -> int:
        return next(self._words, 0)
