"""torch.compile(fullgraph=True): one graph, and the same result.

Compiled with "aot_eager", which stops before machine code: making that would need a C++ compiler on every machine.
"""

import copy

import pytest
import torch

from rvq_tutorial import ResidualVectorQuantizer, VectorQuantizer, nearest

MAKE = {
    "one": lambda: VectorQuantizer(4, 300),
    "residual with dropout": lambda: ResidualVectorQuantizer(4, 8, 3, quantize_dropout=0.5),
    "residual with beam": lambda: ResidualVectorQuantizer(4, 8, 3, beam_size=3, codebook_update="gradient"),
}


@pytest.fixture(params=MAKE)
def quantizer(request):
    torch.manual_seed(0)
    yield MAKE[request.param]().fit(torch.randn(500, 4))
    torch.compiler.reset()


@pytest.mark.parametrize("training", [True, False])
def test_compiled_forward(quantizer, training):
    plain = copy.deepcopy(quantizer.train(training))
    compiled = torch.compile(quantizer, fullgraph=True, backend="aot_eager")
    for batch in (50, 30):
        x = torch.randn(batch, 4)
        results = []
        for module in (plain, compiled):
            torch.manual_seed(1)
            inputs = [x.clone().requires_grad_(), *module.parameters()]
            output = module(inputs[0])
            total = output.quantized.sin().sum() + output.loss
            results.append((*output, *torch.autograd.grad(total, inputs, allow_unused=True)))
        for expected, result in zip(*results, strict=True):
            torch.testing.assert_close(result, expected)
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(quantizer.state_dict()[name], value)


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_a_batch_that_is_not_finite_teaches_nothing(quantizer, wrong):
    compiled = torch.compile(quantizer.train(), fullgraph=True, backend="aot_eager")
    x = torch.randn(50, 4)
    x[7, 2] = wrong
    before = copy.deepcopy(quantizer.state_dict())
    assert not compiled(x).loss.isfinite()
    assert all(torch.equal(value, before[name]) for name, value in quantizer.state_dict().items())
    compiled(torch.randn(50, 4))
    assert not torch.equal(quantizer.stages[0].usage, before["stages.0.usage"])


def test_a_frozen_codebook_never_changes():
    quantizer = VectorQuantizer.from_pretrained(torch.randn(8, 4), freeze=True)
    before = copy.deepcopy(quantizer.state_dict())
    compiled = torch.compile(quantizer, fullgraph=True, backend="aot_eager")
    for num in (50, 30, 0):
        compiled(torch.randn(num, 4) + 10)
    assert all(torch.equal(value, before[name]) for name, value in quantizer.state_dict().items())
    torch.compiler.reset()


def test_no_vectors_pass_through(quantizer):
    compiled = torch.compile(quantizer.train(), fullgraph=True, backend="aot_eager")
    before = copy.deepcopy(quantizer.state_dict())
    output = compiled(torch.randn(0, 4))
    assert output.loss == 0 and output.quantized.shape == (0, 4)
    assert all(torch.equal(value, before[name]) for name, value in quantizer.state_dict().items())


def test_compiled_search():
    x, codebook = torch.randn(50, 4), torch.randn(300, 4)
    compiled = torch.compile(nearest, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(x, codebook), nearest(x, codebook))
    torch.compiler.reset()


def test_compiled_search_is_still_the_fast_one():
    """One operator of ours, not the formulas that an exported graph gets."""
    operators = []

    def watch(graph, _):
        operators.extend(str(node.target) for node in graph.graph.nodes)
        return graph.forward

    torch.compile(nearest, fullgraph=True, backend=watch)(torch.randn(50, 4), torch.randn(300, 4))
    assert "rvq_tutorial.nearest.default" in operators
    torch.compiler.reset()
