"""What torch.onnx.export and torch.export make of the quantizers, run where this package isn't: the same indices."""

import subprocess
import sys

import onnxruntime
import pytest
import torch
from torch import nn

from rvq_tutorial import ResidualVectorQuantizer, VectorQuantizer, export, nearest
from rvq_tutorial.search import nearest_ways

DIM = 8
BATCH, TIME = torch.export.Dim("batch"), torch.export.Dim("time")


class Call(nn.Module):
    """A module's method as a module's forward: what the exporters take."""

    def __init__(self, module, method):
        super().__init__()
        self.module = module
        self.method = method

    def forward(self, argument):
        return getattr(self.module, self.method)(argument)


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def run_in_onnx(module, example, axes, argument, path):
    """Export the module with dynamic `axes`, and run the file on an argument of another size."""
    torch.onnx.export(module.eval(), (example,), path, dynamo=True, dynamic_shapes=(axes,), verbose=False)
    session = onnxruntime.InferenceSession(path)
    results = session.run(None, {session.get_inputs()[0].name: argument.numpy()})
    return [torch.from_numpy(result) for result in results]


OFFSET = 1000  # so far from the origin, float32 would round distances away
MAKE = {
    "own codewords": lambda: VectorQuantizer.from_pretrained(randn(300, DIM) + OFFSET),
    "residual": lambda: ResidualVectorQuantizer(DIM, 32, 3).fit(randn(500, DIM) + OFFSET),
    "residual with beam": lambda: ResidualVectorQuantizer(DIM, 32, 3, beam_size=3).fit(randn(500, DIM) + OFFSET),
}


@pytest.fixture(params=MAKE)
def quantizer(request):
    torch.manual_seed(0)
    return MAKE[request.param]().eval()


def test_onnx_encode_and_decode(quantizer, tmp_path):
    """For any batch size and length: (batch, channels, time), as audio frames lie."""
    quantizer.channel_dim = 1
    example, x = randn(2, DIM, 5, seed=1) + OFFSET, randn(3, DIM, 70, seed=2) + OFFSET
    indices = quantizer.encode(x)
    (result,) = run_in_onnx(Call(quantizer, "encode"), example, {0: BATCH, 2: TIME}, x, tmp_path / "encode.onnx")
    assert result.dtype == torch.int64
    assert torch.equal(result, indices)

    some = indices[:2, :5]
    if indices.ndim == 3:
        indices[0, 0] = torch.tensor([4, -1, -1])  # a vector of one stage
    axes = {0: BATCH, 1: TIME}
    (result,) = run_in_onnx(Call(quantizer, "decode"), some, axes, indices, tmp_path / "decode.onnx")
    torch.testing.assert_close(result, quantizer.decode(indices), rtol=1e-6, atol=1e-6)


def test_onnx_forward(tmp_path):
    torch.manual_seed(0)
    quantizer = ResidualVectorQuantizer(DIM, 32, 3, quantize_dropout=0.5).fit(randn(500, DIM)).eval()
    x = randn(70, DIM, seed=1)
    expected = quantizer(x)
    results = run_in_onnx(quantizer, x[:5], {0: BATCH}, x, tmp_path / "forward.onnx")
    assert len(results) == len(expected)
    assert torch.equal(results[1], expected.indices)
    for result, value in zip(results, expected, strict=True):
        torch.testing.assert_close(result, value)


LOADED = """
import sys, torch
for method in ("encode", "decode"):
    argument, expected = torch.load(f"{method}.pt")
    assert torch.equal(torch.export.load(f"{method}.pt2").module()(argument), expected), method
assert not any(name.startswith("rvq_tutorial") for name in sys.modules)
"""


def test_an_exported_program_needs_no_package(quantizer, tmp_path):
    x = randn(70, DIM, seed=1) + OFFSET
    indices = quantizer.encode(x)
    for method, argument, expected in [("encode", x, indices), ("decode", indices, quantizer.decode(indices))]:
        program = torch.export.export(Call(quantizer, method), (argument[:5],), dynamic_shapes=({0: BATCH},))
        torch.export.save(program, tmp_path / f"{method}.pt2")
        torch.save((argument, expected), tmp_path / f"{method}.pt")
    subprocess.run([sys.executable, "-c", LOADED], check=True, cwd=tmp_path)


@pytest.mark.parametrize("offset", [0, 1000, 1e5])
@pytest.mark.parametrize("codebook_size", [1, 2, 3, 64, 600])
def test_portable_search_equals_the_fast_one(codebook_size, offset):
    x, codebook = randn(200, 2, DIM) + offset, randn(codebook_size, DIM, seed=1) + offset
    found = export.nearest(x.flatten(0, 1), codebook)
    assert (found == nearest(x.flatten(0, 1), codebook)).float().mean() > 0.99
    ways = export.nearest_ways(x, codebook, 3)
    parent, index = nearest_ways(x, codebook, 3)
    assert ways.shape == parent.shape
    assert (ways == parent * codebook_size + index).float().mean() > 0.99


@pytest.mark.parametrize("place", [0, 32, -1])
def test_one_codeword_far_out_spoils_no_other(place):
    x, codebook = randn(500, DIM), randn(64, DIM, seed=1)
    codebook[place] = 1e6
    assert torch.equal(export.nearest(x, codebook), nearest(x, codebook))


@pytest.mark.parametrize("dtypes", [("float16", "float16"), ("float16", "float32"), ("float32", "float64")])
def test_portable_search_in_float32_at_least(dtypes):
    x, codebook = (randn(300, DIM, seed=i).to(getattr(torch, dtype)) for i, dtype in enumerate(dtypes))
    assert torch.equal(export.nearest(x, codebook), nearest(x, codebook))


def test_portable_search_uses_double_precision_where_it_came():
    codebook = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    x = torch.tensor([[0.5 - 1e-12], [0.5 + 1e-12]], dtype=torch.float64)
    assert export.nearest(x, codebook).tolist() == [0, 1]
