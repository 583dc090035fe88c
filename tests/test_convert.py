"""Quantizers of vector-quantize-pytorch become ours: the same indices, the same outputs, and training goes on."""

import pytest
import torch
from vector_quantize_pytorch import FSQ, GroupedResidualVQ, ResidualVQ, SimVQ, VectorQuantize

from rvq_tutorial import Grouped, Projected, ResidualVectorQuantizer, VectorQuantizer
from rvq_tutorial.convert import from_vector_quantize_pytorch

RESIDUAL = {"dim": 8, "codebook_size": 16, "num_quantizers": 3, "kmeans_init": True}
ONE = {"dim": 8, "codebook_size": 16}
THEIRS = {
    "one": lambda: VectorQuantize(**ONE, decay=0.9),
    "one, k-means": lambda: VectorQuantize(**ONE, kmeans_init=True, rotation_trick=False, threshold_ema_dead_code=2),
    "one, cosine": lambda: VectorQuantize(**ONE, use_cosine_sim=True, kmeans_init=True),
    "one, projected": lambda: VectorQuantize(**ONE, codebook_dim=3),
    "one, cosine, projected": lambda: VectorQuantize(**ONE, codebook_dim=3, use_cosine_sim=True),
    "one, images": lambda: VectorQuantize(**ONE, accept_image_fmap=True, codebook_dim=3),
    "one, volumes": lambda: VectorQuantize(**ONE, accept_3d_fmap=True),
    "one, channels first": lambda: VectorQuantize(**ONE, channel_last=False),
    "one, by the gradient": lambda: VectorQuantize(**ONE, learnable_codebook=True, ema_update=False),
    "one, frozen": lambda: VectorQuantize(**ONE, freeze_codebook=True),
    "residual": lambda: ResidualVQ(**RESIDUAL, decay=0.9, threshold_ema_dead_code=2),
    "residual, images": lambda: ResidualVQ(**RESIDUAL, accept_image_fmap=True),
    "residual, projected": lambda: ResidualVQ(**RESIDUAL, codebook_dim=3),
    "residual, shared": lambda: ResidualVQ(**RESIDUAL, shared_codebook=True),
    "residual, sizes": lambda: ResidualVQ(**RESIDUAL | {"codebook_size": (16, 8, 4)}, quantize_dropout=True),
    "grouped": lambda: GroupedResidualVQ(**RESIDUAL, groups=2),
    "grouped, projected": lambda: GroupedResidualVQ(**RESIDUAL, groups=2, codebook_dim=3),
    "grouped, images": lambda: GroupedResidualVQ(**RESIDUAL, groups=2, accept_image_fmap=True),
}
SHAPES = {
    "one, images": (4, 8, 10, 10),
    "one, volumes": (4, 8, 5, 4, 5),
    "one, channels first": (4, 8, 100),
    # Version 1.32.0 takes images into residual stages only where they are as high and as wide as a vector is long.
    "residual, images": (6, 8, 8, 8),
    "grouped, images": (24, 8, 4, 4),
}


def batch(name):
    return torch.randn(SHAPES.get(name, (4, 100, 8)))


def trained(name, steps=60):
    torch.manual_seed(0)
    theirs = THEIRS[name]()
    for _ in range(steps):
        theirs(batch(name))
    return theirs


def groups_last(indices, name):
    """Theirs has the groups in front, (G, B, …, M); ours has them before the stages, (B, …, G, M)."""
    return indices.movedim(0, -2) if "grouped" in name else indices


@pytest.mark.parametrize("name", THEIRS)
def test_the_same_indices_and_outputs(name):
    theirs = trained(name).eval()
    ours, x = from_vector_quantize_pytorch(theirs), batch(name)
    expected, indices, _ = theirs(x)
    output = ours(x)
    assert not ours.training and from_vector_quantize_pytorch(theirs.train()).training
    assert torch.equal(output.indices, groups_last(indices, name))
    torch.testing.assert_close(output.quantized, expected, rtol=0, atol=1e-5)
    assert torch.equal(ours.decode(ours.encode(x)), output.quantized)


@pytest.mark.parametrize("name", THEIRS)
def test_a_state_dict_and_the_settings_that_it_leaves_out(name):
    state = trained(name).state_dict()
    settings = {"channel_dim": 1 if name in SHAPES else -1}
    if "cosine" in name:
        settings["similarity"] = "cosine"
    ours, x = from_vector_quantize_pytorch(state, **settings).eval(), batch(name)
    expected = from_vector_quantize_pytorch(trained(name)).eval()
    assert torch.equal(ours(x).indices, expected(x).indices)
    assert torch.equal(ours(x).quantized, expected(x).quantized)


def test_what_they_become():
    made = {name: from_vector_quantize_pytorch(trained(name, steps=10)) for name in THEIRS}
    kinds = {"one": VectorQuantizer, "residual": ResidualVectorQuantizer, "grouped": Grouped}
    for name, quantizer in made.items():
        wanted = Projected if "projected" in name or name == "one, images" else kinds[name.split(",")[0]]
        assert type(quantizer) is (Grouped if "grouped" in name else wanted), name
    assert type(made["grouped, projected"].quantizers[0]) is Projected
    assert made["residual, sizes"].codebook_sizes == (16, 8, 4) and made["residual, sizes"].quantize_dropout == 1
    assert made["one, by the gradient"].codebook_update == "gradient"
    assert made["one, frozen"].codebook_update == "none"
    assert made["one, cosine"].similarity == "cosine"
    assert made["one"].gradient == "rotation" and made["one, k-means"].gradient == "straight-through"
    assert made["one"].decay == 0.9 and made["one"].dead_code_threshold == 0
    assert made["residual"].commitment_weight == 1 and made["residual"].beam_size == 1
    # 2 of the 400 / 16 vectors that a codeword has when all are used alike
    assert made["one, k-means"].dead_code_threshold == pytest.approx(2 / 25, rel=0.02)


def test_settings_of_ones_own_come_first():
    ours = from_vector_quantize_pytorch(trained("one", steps=1), decay=0.5, commitment_weight=0.25)
    assert ours.decay == 0.5 and ours.commitment_weight == 0.25 and ours.gradient == "rotation"


@pytest.mark.parametrize("name", ["one", "residual", "one, k-means"])
def test_training_goes_on_where_it_was(name):
    theirs = trained(name)
    ours = from_vector_quantize_pytorch(theirs)
    pairs = list(zip(ours.stages, getattr(theirs, "layers", [theirs]), strict=True))
    before = [stage.vectors.clone() for stage in ours.stages]
    for _ in range(5):
        x = batch(name)
        loss = theirs(x)[2].mean()  # of the stages
        torch.testing.assert_close(ours(x).loss, loss, rtol=1e-3, atol=0)
    for old, (stage, layer) in zip(before, pairs, strict=True):
        vectors, counts = layer._codebook.embed[0], layer._codebook.cluster_size[0]
        torch.testing.assert_close(stage.usage, counts / counts.sum(), rtol=0.01, atol=0)
        assert (stage.vectors - vectors).norm() < 0.01 * (vectors - old).norm()


def test_one_step_in_the_gradients_way():
    theirs = trained("one, by the gradient", steps=0)
    ours, x = from_vector_quantize_pytorch(theirs), batch("one")
    theirs(x)[2].backward()
    ours(x).codebook_loss.backward()
    torch.testing.assert_close(ours.stages[0].vectors.grad, theirs._codebook.embed.grad[0])


REFUSED = {
    "cosine between stages": (
        lambda: ResidualVQ(**RESIDUAL, use_cosine_sim=True),
        "source must not be residual by cosines, whose stages each see their residual at length 1",
    ),
    "a network between stages": (
        lambda: ResidualVQ(**RESIDUAL, implicit_neural_codebook=True),
        "source must be a quantizer of codebooks and linear projections alone, got mlps.0.proj_in.weight",
    ),
    "affine": (
        lambda: VectorQuantize(**ONE, affine_param=True),
        "source must be a quantizer of codebooks and linear projections alone, got _codebook.codebook_mean_needs_init",
    ),
    "bridge": (
        lambda: VectorQuantize(**ONE, vq_bridge=torch.nn.Linear(8, 8)),
        "source must be a quantizer of codebooks and linear projections alone, got _codebook.vq_bridge.weight",
    ),
    "layer norm": (
        lambda: VectorQuantize(**ONE, codebook_dim=3, layernorm_after_project_in=True),
        "source must be a quantizer of codebooks and linear projections alone, got project_in.0.weight",
    ),
    "heads": (lambda: VectorQuantize(**ONE, heads=2, codebook_dim=4), "source must have one head, got heads = 2"),
    "projected heads": (
        lambda: VectorQuantize(**ONE, heads=2, codebook_dim=3).state_dict(),
        "source must have one head, got 2",
    ),
    "heads apart": (
        lambda: VectorQuantize(**ONE, heads=2, codebook_dim=4, separate_codebook_per_head=True).state_dict(),
        "source must have one head, got 2",
    ),
    "nothing yet": (
        lambda: ResidualVQ(**RESIDUAL),
        "source must have codewords, but its kmeans_init still waits for the first batch",
    ),
    "another class": (
        lambda: SimVQ(dim=8, codebook_size=16),
        "source must be a quantizer of codebooks and linear projections alone, got frozen_codebook",
    ),
    "no codebook": (
        lambda: FSQ([5, 5]),
        "source must be a quantizer of codebooks and linear projections alone, got nothing",
    ),
    "a path": (lambda: "model.pt", "source must be a module or its state_dict, got str"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_counterpart_is_refused(name):
    make, sentence = REFUSED[name]
    with pytest.raises((TypeError, ValueError)) as info:
        from_vector_quantize_pytorch(make())
    assert str(info.value) == sentence
