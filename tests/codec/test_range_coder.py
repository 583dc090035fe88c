"""The range coder for machines without constriction: the same words as constriction's, and the same symbols."""

import numpy as np
import pytest
from constriction import stream
from hypothesis import given, settings
from hypothesis import strategies as st

from rvq_tutorial.codec import range_coder

THEIRS, OURS = stream.model.Categorical(perfect=False), range_coder.Categorical(perfect=False)

SEEDS = st.integers(0, 2**32 - 1)


def weights(generator: np.random.Generator, rows: int, size: int) -> np.ndarray:
    """Whole numbers whose sums are at most 2²⁴: even, of any kind, or such that almost nothing is left for most."""
    top = 24 - (size - 1).bit_length()
    bits = generator.choice([0, top, generator.integers(top + 1)], (rows, size), p=[0.6, 0.1, 0.3])
    return np.round(2.0 ** (bits * generator.choice([1, generator.random()]))).astype(np.float32)


def messages(seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Symbols (n,) with their weights (n, K): likely ones, unlikely ones, always the first or always the last."""
    generator, message = np.random.default_rng(seed), []
    for _ in range(generator.integers(12)):
        size, rows = int(generator.choice([2, 3, 256, 1000])), generator.integers(20)
        each = weights(generator, rows, size)
        likely, unlikely, last = each.argmax(1), each.argmin(1), np.full(rows, size - 1)
        symbols = (generator.integers(size, size=rows), likely, unlikely, last)[generator.integers(4)]
        message.append((symbols.astype(np.int32), each))
    return message


def written(encoder, model, message) -> np.ndarray:
    for symbols, each in message:
        encoder.encode(symbols, model, each)
    return encoder.get_compressed()


@given(SEEDS)
@settings(deadline=None, max_examples=300)
def test_the_words_are_those_of_constriction(seed):
    message = messages(seed)
    words = written(range_coder.RangeEncoder(), OURS, message)
    assert words.tolist() == written(stream.queue.RangeEncoder(), THEIRS, message).tolist()
    decoder = range_coder.RangeDecoder(words)
    for symbols, each in message:
        np.testing.assert_array_equal(decoder.decode(OURS, each), symbols)


@given(SEEDS, st.integers(0, 9), st.sampled_from([0, 1, 2**32 - 2]))
@settings(deadline=None)
def test_words_that_nobody_wrote_are_read_alike(seed, count, low):
    """Of words that begin with many ones, too: a number so high that no encoder comes to it."""
    words = np.random.default_rng(seed).integers(low, 2**32, count, dtype=np.uint32)
    decoders = range_coder.RangeDecoder(words), stream.queue.RangeDecoder(words)
    for _, each in messages(seed):
        read = []
        for decoder, model in zip(decoders, (OURS, THEIRS), strict=True):
            try:
                read.append(decoder.decode(model, each).tolist())
            except (ValueError, AssertionError):
                read.append("refused")
        assert read[0] == read[1]
        if "refused" in read:
            break


def test_a_number_beyond_the_range_is_refused():
    decoder = range_coder.RangeDecoder(np.full(4, 2**32 - 1, np.uint32))
    with pytest.raises(ValueError, match="beyond the range"):
        decoder.decode(OURS, np.ones((1, 256), np.float32))


def test_a_carry_runs_through_words_of_ones():
    """Symbols whose range holds a number just below a half, and then the last, which is above it."""
    words = np.array([2**31 - 1, *[2**32 - 1] * 7], np.uint32)
    weights = np.ones((12, 255), np.float32)
    symbols = stream.queue.RangeDecoder(words).decode(THEIRS, weights)
    message = [(symbols, weights), (np.array([254], np.int32), weights[:1])]
    carried = written(range_coder.RangeEncoder(), OURS, message).tolist()
    assert carried[:2] == [2**31, 0]
    assert carried == written(stream.queue.RangeEncoder(), THEIRS, message).tolist()
