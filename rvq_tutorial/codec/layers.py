"""A layer: the indices of one stage, from a range coder that knows their probabilities from the prior."""

import numpy as np

from rvq_tutorial.autoencoder.prior import StagePrior
from rvq_tutorial.codec import range_coder
from rvq_tutorial.codec.container import CodecError
from rvq_tutorial.language import said

try:
    from constriction import stream

    model, queue = stream.model, stream.queue
except ModuleNotFoundError:  # there is no wheel for this machine
    model = queue = range_coder

WEIGHTS = model.Categorical(perfect=False)  # an index by its weight's share of the sum of all weights
LAST_BITS = 64  # more than the range coder can still owe when it ends


def write(stage: StagePrior, indices: np.ndarray) -> bytes:
    """The layer of one stage of the indices (h, w, M)."""
    encoder = queue.RangeEncoder()
    for rows, columns, ends, weights in stage.walk(indices):
        index = indices[rows, columns, stage.stage].astype(np.int32)
        goes_on = index >= 0
        encoder.encode(goes_on.astype(np.int32), WEIGHTS, ends)
        encoder.encode(index[goes_on], WEIGHTS, weights[goes_on])
    return encoder.get_compressed().astype("<u4").tobytes()


def read(layer: bytes, stage: StagePrior, indices: np.ndarray) -> None:
    """Fill in one stage of the indices, −1 so far; those before it are there."""
    try:
        decoder = queue.RangeDecoder(np.frombuffer(layer, "<u4").astype(np.uint32))
        for rows, columns, ends, weights in stage.walk(indices):
            goes_on = decoder.decode(WEIGHTS, ends) == 1
            indices[rows[goes_on], columns[goes_on], stage.stage] = decoder.decode(WEIGHTS, weights[goes_on])
    except (ValueError, AssertionError) as error:  # not whole words, or no encoder writes such words
        sentence = said("The file is damaged: layer {layer} does not hold indices.", layer=stage.stage + 1)
        raise CodecError(sentence) from error
