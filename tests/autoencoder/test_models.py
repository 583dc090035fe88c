import pytest
import torch

from rvq_tutorial import ResidualVectorQuantizer, VectorQuantizer, metrics
from rvq_tutorial.autoencoder.models import VQVAE, Decoder, Encoder, cosine_patterns
from rvq_tutorial.course import data


@pytest.fixture
def images():
    return data.photo_crops(64, 2, split="held_out")


def residual_model(dim=8, codebook_size=16, num_quantizers=3, **settings):
    torch.manual_seed(0)
    quantizer = ResidualVectorQuantizer(dim, codebook_size, num_quantizers, channel_dim=1, **settings)
    model = VQVAE(Encoder(dim=dim, width=16), quantizer, Decoder(dim=dim, width=16))
    for block in [*model.encoder.blocks, *model.decoder.blocks]:  # as if it had been trained: no block does nothing
        torch.nn.init.normal_(block.layers[-1].weight, std=0.1)
    quantizer.fit(model.latents(data.photo_crops(64, 8)).detach())
    return model.eval()


# Encoder and decoder


@pytest.mark.parametrize("stride", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("channels", [1, 3])
def test_one_latent_stands_for_a_patch(stride, channels):
    latents = Encoder(channels, 5, width=24, stride=stride)(torch.rand(2, channels, 32, 48))
    assert latents.shape == (2, 5, 32 // stride, 48 // stride)
    assert Decoder(channels, 5, width=24, stride=stride)(latents).shape == (2, channels, 32, 48)


@pytest.mark.parametrize(("channels", "size"), [(3, 8), (1, 4), (3, 1)])
def test_cosine_patterns_are_an_orthonormal_basis(channels, size):
    patterns = cosine_patterns(channels, size).flatten(1)
    torch.testing.assert_close(patterns @ patterns.t(), torch.eye(channels * size**2), atol=1e-5, rtol=0)


def test_cosine_patterns_go_from_coarse_to_fine():
    first, second, *_, last = cosine_patterns(3, 8)
    assert first.std() < 1e-6
    assert (second[0] - second[2]).abs().max() < 1e-6  # a slope of brightness, without colour
    assert (last[:, 1:] * last[:, :-1] < 0).all()


def test_untrained_it_is_the_cosine_transform(images):
    """With all its coefficients nothing is lost; with a third of them a photo is still good."""
    whole = Decoder(dim=192, width=192)(Encoder(dim=192, width=192)(images))
    torch.testing.assert_close(whole, images, atol=1e-5, rtol=0)
    third = Decoder(dim=64)(Encoder(dim=64)(images))
    assert metrics.psnr(third, images) > 27


def test_every_weight_gets_a_gradient():
    torch.manual_seed(0)
    encoder, decoder = Encoder(dim=8, width=16), Decoder(dim=8, width=16)
    for block in [*encoder.blocks, *decoder.blocks]:
        torch.nn.init.normal_(block.layers[-1].weight)
    decoder(encoder(torch.rand(4, 3, 32, 32))).square().sum().backward()
    for name, weight in [*encoder.named_parameters(), *decoder.named_parameters()]:
        assert weight.grad.abs().sum() > 0, name


@pytest.mark.parametrize("layer", [Encoder, Decoder])
def test_bad_sizes_are_named(layer):
    with pytest.raises(ValueError, match="stride must be a power of two, got 6"):
        layer(stride=6)
    channels = "in_channels" if layer is Encoder else "out_channels"
    for name in [channels, "dim", "width", "num_blocks"]:
        with pytest.raises(ValueError, match=f"{name} must be a whole number"):
            layer(**{name: 0})


# VQVAE


def test_a_configuration_known_from_older_code():
    """2 quantizers, 16 codewords, 64 channels, images 3 x 64 x 64, features 1 x 64 x 8 x 8."""
    quantizer = ResidualVectorQuantizer(64, 16, 2, channel_dim=1)
    model = VQVAE(Encoder(dim=64), quantizer, Decoder(dim=64)).eval()
    image = torch.rand(1, 3, 64, 64)
    assert model.latents(image).shape == (1, 64, 8, 8)
    output = model(image)
    assert output.reconstruction.shape == (1, 3, 64, 64)
    assert output.indices.shape == (1, 8, 8, 2) and output.indices.dtype == torch.int64
    assert output.loss.shape == ()
    assert model.encode(image).shape == (1, 8, 8, 2)
    assert model.decode(output.indices).shape == (1, 3, 64, 64)


def test_a_single_codebook(images):
    model = VQVAE(Encoder(dim=8), VectorQuantizer(8, 16, channel_dim=1), Decoder(dim=8)).eval()
    output = model(images)
    assert output.indices.shape == (2, 8, 8)
    assert torch.equal(model.encode(images), output.indices)
    assert torch.equal(model.decode(output.indices), output.reconstruction)


@pytest.mark.parametrize("size", [(64, 64), (1, 1), (5, 64), (61, 47), (8, 9)])
def test_images_of_any_size(images, size):
    model, images = residual_model(), images[..., : size[0], : size[1]]
    output = model(images)
    assert output.reconstruction.shape == images.shape
    indices = model.encode(images)
    assert indices.shape == (2, -(-size[0] // 8), -(-size[1] // 8), 3)
    assert torch.equal(indices, output.indices)
    assert torch.equal(model.decode(indices)[..., : size[0], : size[1]], output.reconstruction)


def test_bypassed_nothing_is_lost_in_the_quantizer(images):
    model, images = residual_model(), images[..., :61, :47]
    rebuilt = model.bypass(images)
    assert rebuilt.shape == images.shape
    assert torch.equal(rebuilt, model.decoder(model.latents(images))[..., :61, :47])
    assert (rebuilt - images).square().mean() < (model(images).reconstruction - images).square().mean()


def test_a_last_patch_is_filled_up_with_the_edge(images):
    model, grey = residual_model(), torch.full((1, 3, 16, 16), 0.3)
    assert torch.equal(model.latents(grey[..., :13, :11]), model.latents(grey))


@pytest.mark.parametrize("batch", [1, 2])
def test_any_number_of_stages(images, batch):
    """Encoding, decoding and the pass through the model agree bit for bit, from any prefix of the stages."""
    model, images = residual_model(), images[:batch]
    indices = model.encode(images)
    for m in [1, 2, 3]:
        output = model(images, num_quantizers=m)
        assert torch.equal(output.indices, indices[..., :m])
        assert torch.equal(model.encode(images, num_quantizers=m), indices[..., :m])
        assert torch.equal(model.decode(indices[..., :m]), output.reconstruction)


def test_the_reconstruction_moves_the_encoder_and_not_the_codebooks(images):
    model = residual_model(codebook_update="gradient")
    model(images).reconstruction.square().mean().backward()
    assert model.encoder.from_patches.weight.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in model.quantizer.parameters())


@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        (torch.rand(3, 64, 64), ValueError, r"images must have shape \(B, 3, H, W\), got \(3, 64, 64\)"),
        (torch.rand(2, 1, 64, 64), ValueError, r"images must have shape \(B, 3, H, W\), got \(2, 1, 64, 64\)"),
        (
            torch.zeros(1, 3, 8, 8, dtype=torch.uint8),
            TypeError,
            "images must be a floating-point tensor, got torch.uint8",
        ),
        (torch.zeros(0, 3, 8, 8), ValueError, "images must not be empty"),
        (torch.full((1, 3, 8, 8), torch.nan), ValueError, "images must be finite"),
    ],
)
def test_bad_images_are_named(images, error, message):
    model = residual_model().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for call in [model, model.encode]:
        with pytest.raises(error, match=message):
            call(images)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_quantizer_must_take_images():
    with pytest.raises(ValueError, match="quantizer must have channel_dim = 1, got -1"):
        VQVAE(Encoder(dim=8), VectorQuantizer(8, 16), Decoder(dim=8))


def test_more_stages_than_there_are(images):
    with pytest.raises(ValueError, match="num_quantizers"):
        residual_model()(images, num_quantizers=4)
