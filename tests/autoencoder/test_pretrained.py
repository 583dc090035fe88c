import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from rvq_tutorial import ResidualVectorQuantizer, VectorQuantizer, metrics
from rvq_tutorial.autoencoder import VQVAE, Decoder, Encoder, IndexPrior, pretrained
from rvq_tutorial.course import data


@pytest.fixture
def model():
    torch.manual_seed(0)
    quantizer = ResidualVectorQuantizer(6, 8, 3, channel_dim=1, beam_size=2)
    sizes = {"width": 8, "stride": 4}
    return VQVAE(Encoder(3, 6, **sizes, num_blocks=1), quantizer, Decoder(3, 6, **sizes, num_blocks=2)).eval()


@pytest.fixture
def prior(model):
    return IndexPrior(8, 3).fit([model.encode(data.photo_crops(64, 4))])


@pytest.fixture
def file(model, prior, tmp_path):
    pretrained.save(tmp_path / "model.safetensors", model, prior)
    return tmp_path / "model.safetensors"


def rewritten(file, metadata):
    """The same tensors with other metadata."""
    save_file(load_file(file), file, metadata)
    return file


def settings(file):
    length = int.from_bytes(file.read_bytes()[:8], "little")
    return json.loads(file.read_bytes()[8 : 8 + length])["__metadata__"]


# Any model


def same(one, other):
    one, other = one.state_dict(), other.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_what_was_saved_comes_back(model, prior, file):
    loaded, loaded_prior = pretrained.load(file)
    assert same(loaded, model) and same(loaded_prior, prior)
    images = torch.rand(2, 3, 21, 30)
    assert not loaded.training
    assert torch.equal(loaded.encode(images), model.encode(images))  # with the same beam
    assert torch.equal(loaded(images).reconstruction, model(images).reconstruction)
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize("codebook_update", ["ema", "gradient", "none"])
def test_what_comes_back_trains_on_in_the_same_way(model, prior, tmp_path, codebook_update):
    settings = {"commitment_weight": 0.5, "quantize_dropout": 0.7, "decay": 0.8, "dead_code_threshold": 0.3}
    settings |= {"beam_size": 2, "channel_dim": 1, "codebook_update": codebook_update}
    model.quantizer = ResidualVectorQuantizer(6, 8, 3, **settings).fit(torch.randn(20, 6, 30))
    pretrained.save(tmp_path / "model.safetensors", model, prior)
    loaded, _ = pretrained.load(tmp_path / "model.safetensors")
    assert {name: getattr(loaded.quantizer, name) for name in settings} == settings
    for one in (model.train(), loaded.train()):
        torch.manual_seed(3)
        optimizer = torch.optim.SGD(one.parameters(), 0.1)
        for _ in range(3):
            optimizer.zero_grad()
            one(torch.rand(2, 3, 20, 20)).loss.backward()
            optimizer.step()
    assert same(loaded, model)


def test_settings_that_an_older_file_lacks_are_the_constructors(model, file):
    older = settings(file)
    parts = json.loads(older["settings"])
    for name in ("quantize_dropout", "commitment_weight", "codebook_update", "decay", "dead_code_threshold"):
        del parts["quantizer"][name]
    loaded, _ = pretrained.load(rewritten(file, {**older, "settings": json.dumps(parts)}))
    assert same(loaded, model) and loaded.quantizer.beam_size == 2
    assert (loaded.quantizer.codebook_update, loaded.quantizer.decay) == ("ema", 0.99)


def test_a_model_of_other_parts_leaves_the_old_file(model, prior, file):
    before = file.read_bytes()
    model.quantizer = VectorQuantizer(6, 8, channel_dim=1)
    with pytest.raises(TypeError, match="model must have a ResidualVectorQuantizer as its quantizer, got VectorQ"):
        pretrained.save(file, model, prior)
    assert file.read_bytes() == before


def test_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"path must name a model file; there is no file .*none"):
        pretrained.load(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match="there is no file"):
        pretrained.load(tmp_path)


@pytest.mark.parametrize("length", [0, 4, 100, -1])
def test_a_file_cut_short(file, length):
    file.write_bytes(file.read_bytes()[:length])
    with pytest.raises(ValueError, match=r"path must name a whole model file; .* is damaged or no safetensors file"):
        pretrained.load(file)


def test_a_single_wrong_bit(file):
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"path must name a whole model file; .* is damaged"):
        pretrained.load(file)


def test_a_foreign_file(file):
    file.write_bytes(b"\x89PNG and so on, for more than a few bytes")
    with pytest.raises(ValueError, match="is damaged or no safetensors file"):
        pretrained.load(file)


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}, {"format": "rvq_tutorial 2"}])
def test_somebody_elses_or_a_later_format(file, metadata):
    with pytest.raises(ValueError, match="path must name a model file of format 'rvq_tutorial 1', got "):
        pretrained.load(rewritten(file, metadata))


def test_tensors_and_settings_that_do_not_fit(file):
    right = settings(file)
    other = json.loads(right["settings"])
    other["encoder"]["width"] = 16
    for metadata in [
        {**right, "settings": json.dumps(other)},
        {**right, "settings": "{"},
        {name: right[name] for name in ("format", "sha256")},
    ]:
        content = file.read_bytes()
        with pytest.raises(ValueError, match=r"the tensors and settings in .* don't fit"):
            pretrained.load(rewritten(file, metadata))
        file.write_bytes(content)


# The one that ships


def test_the_shipped_model_is_small():
    assert pretrained.PHOTOS.stat().st_size < 4e6
    assert pretrained.PHOTOS.with_name("MODEL_CARD.md").is_file()


@torch.no_grad()
def test_the_shipped_model_on_held_out_photos():
    model, prior = pretrained.load()
    photos = list(data.photos().held_out.values())
    assert prior.codebook_size == model.quantizer.codebook_size == 256

    def quality(images):
        return sum(metrics.psnr(image[0].clamp(0, 1), photo) for image, photo in zip(images, photos, strict=True)) / 3

    psnr = [quality(model(photo[None], num_quantizers=m).reconstruction for photo in photos) for m in range(1, 9)]
    gains = torch.tensor(psnr).diff()
    assert (gains > 0).all() and psnr[-1] > 28.5 and psnr[-1] - psnr[0] > 5

    sizes = [photo.shape[1:] for photo in photos]
    latents = [model.latents(photo[None]) for photo in photos]
    images = (model.decoder(z)[..., :height, :width] for z, (height, width) in zip(latents, sizes, strict=True))
    assert psnr[-1] < quality(images) < psnr[-1] + 0.5

    indices = torch.cat([model.encode(photo[None]).flatten(0, 2) for photo in photos])
    assert all(metrics.usage(stage, 256) > 0.95 for stage in indices.unbind(-1))
