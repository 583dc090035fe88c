import functools
import os
import re
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from rvq_tutorial import ResidualVectorQuantizer, VectorQuantizer, codec, metrics
from rvq_tutorial.autoencoder import VQVAE, Decoder, Encoder, IndexPrior, pretrained
from rvq_tutorial.codec import Codec, CodecError, container, layers, tiles
from rvq_tutorial.codec.pictures import read_photo

STRIDE = 4
NEEDS_POSIX = pytest.mark.skipif(os.name != "posix", reason="no such files on this system")
NEEDS_A_FULL_DISK = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no full disk on this system")


def random_image(height, width, seed=0):
    return torch.rand(3, height, width, generator=torch.Generator().manual_seed(seed))


def smooth_image(height, width):
    across, down = torch.linspace(0, 1, width), torch.linspace(0, 1, height)[:, None]
    return torch.stack([across * down, (across + down) / 2, 1 - across.expand(height, width)])


def make_codec(codebook_size=6, num_quantizers=3, seed=0, beam_size=1, num_blocks=1):
    torch.manual_seed(seed)
    sizes = {"dim": 5, "width": 8, "stride": STRIDE, "num_blocks": num_blocks}
    quantizer = ResidualVectorQuantizer(5, codebook_size, num_quantizers, channel_dim=1, beam_size=beam_size)
    model = VQVAE(Encoder(**sizes), quantizer, Decoder(**sizes)).eval()
    for block in [*model.encoder.blocks, *model.decoder.blocks]:  # as if it had been trained: neighbours matter
        torch.nn.init.normal_(block.layers[-1].weight, std=0.3)
    model.decoder.to_patches.weight.data *= 2  # some values leave [0, 1]
    images = torch.stack([smooth_image(64, 64), random_image(64, 64, seed=9)])
    quantizer.fit(model.latents(images).detach())
    return Codec(model, IndexPrior(codebook_size, num_quantizers).fit([model.encode(images)]))


shared = functools.cache(make_codec)


@torch.no_grad()
def expected(model, image, stages=None):
    height, width = image.shape[1:]
    return model.decode(model.encode(image[None])[..., :stages])[0, :, :height, :width].clamp(0, 1)


@pytest.fixture
def file():
    return shared().compress(random_image(9, 14))


def layer_ends(file):
    """Where each layer of a whole file ends."""
    sizes = codec.info(file).layer_bytes
    return [container.HEADER.size + sum(sizes[: m + 1]) + (m + 1) * container.LAYER.size for m in range(len(sizes))]


# Round trips


@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    codebook_size=st.integers(2, 9),
    num_quantizers=st.integers(1, 8),
    beam_size=st.sampled_from([1, 3]),
    smooth=st.booleans(),
    data=st.data(),
)
@settings(deadline=None, max_examples=60)
def test_any_image_comes_back_as_the_model_gives_it(
    height, width, codebook_size, num_quantizers, beam_size, smooth, data
):
    """Bit for bit, and from any number of stages."""
    ours = shared(codebook_size, num_quantizers, beam_size=beam_size)
    image = smooth_image(height, width) if smooth else random_image(height, width)
    file = ours.compress(image)
    assert torch.equal(ours.decompress(file), expected(ours.model, image))

    stages = data.draw(st.integers(1, num_quantizers))
    prefix = expected(ours.model, image, stages)
    assert torch.equal(ours.decompress(file, stages), prefix)
    shorter = codec.truncate(file, stages)
    assert torch.equal(ours.decompress(shorter), prefix)
    encoded = ours.model.encode(image[None], num_quantizers=stages)[0]
    assert torch.equal(ours.encode(image, stages), encoded)


def test_a_truncated_file_is_the_one_that_fewer_stages_write(file):
    """Where the search is greedy, so that each stage does not depend on those after it."""
    image = random_image(9, 14)
    for stages in (1, 2, 3):
        assert codec.truncate(file, stages) == shared().compress(image, stages)


@given(height=st.integers(1, 60), width=st.integers(1, 60), num_blocks=st.integers(1, 3))
@settings(deadline=None, max_examples=30)
def test_tiles_give_the_same_as_the_whole(height, width, num_blocks):
    """With tiles of 4 × 4 cells, and edges that matter to the cells beside them."""
    ours = shared(num_blocks=num_blocks)
    image = random_image(height, width)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiles, "TILE", 4 * STRIDE)
        indices = ours.encode(image)
        tiled = ours.decode(indices, height, width)
        assert torch.equal(ours.decompress(ours.compress(image)), tiled)
    with torch.no_grad():
        assert torch.equal(indices, ours.model.encode(image[None])[0])
    torch.testing.assert_close(tiled, expected(ours.model, image), atol=1e-5, rtol=0)


def test_a_photo_of_several_tiles(monkeypatch):
    ours = shared(num_blocks=2)
    image = random_image(tiles.TILE + 70, 33)
    restored = ours.decompress(ours.compress(image))
    torch.testing.assert_close(restored, expected(ours.model, image), atol=1e-5, rtol=0)


def test_without_a_prior_an_index_takes_log2_k_bits():
    ours = Codec(shared(8, 2).model)
    image = random_image(128, 128)
    sizes = codec.info(ours.compress(image)).layer_bytes
    assert sizes == pytest.approx([32 * 32 * 3 / 8] * 2, abs=8)
    assert torch.equal(ours.decompress(ours.compress(image)), expected(ours.model, image))


def test_with_its_prior_a_smooth_photo_takes_less():
    image = smooth_image(128, 128)
    ours = shared(8, 2)
    assert len(ours.compress(image)) < 0.7 * len(Codec(ours.model).compress(image))


def test_one_colour_takes_next_to_nothing():
    """Where the prior has seen that indices are alike."""
    grey = torch.full((3, 256, 256), 0.5)
    model = shared(8, 2).model
    ours = Codec(model, IndexPrior(8, 2).fit([Codec(model).encode(grey)] * 20))
    file = ours.compress(grey)
    assert len(file) < 200
    assert torch.equal(ours.decompress(file), expected(model, grey))


def test_half_precision_photos():
    image = random_image(12, 12).half()
    assert torch.equal(shared().decompress(shared().compress(image)), expected(shared().model, image.float()))


# Stopping early


def stopping_grid(height, width, num_quantizers, codebook_size, seed=0):
    """Random indices; some places stop before a stage, even the first."""
    generator = torch.Generator().manual_seed(seed)
    grid = torch.randint(codebook_size, (height, width, num_quantizers), generator=generator)
    kept = torch.randint(num_quantizers + 2, (height, width, 1), generator=generator)
    return grid.masked_fill(torch.arange(num_quantizers) >= kept, -1).numpy()


@given(height=st.integers(1, 12), width=st.integers(1, 12), codebook_size=st.integers(2, 300), seed=st.integers(0, 999))
@settings(deadline=None)
def test_indices_that_stop_come_back(height, width, codebook_size, seed):
    grid = stopping_grid(height, width, 3, codebook_size, seed)
    restored = np.full_like(grid, -1)
    for stage in IndexPrior(codebook_size, 3).stages:
        layers.read(layers.write(stage, grid), stage, restored)
    np.testing.assert_array_equal(restored, grid)


@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    num_quantizers=st.integers(1, 4),
    beam_size=st.sampled_from([1, 3]),
    data=st.data(),
)
@settings(deadline=None, max_examples=40)
def test_a_file_of_at_most_so_many_bytes(height, width, num_quantizers, beam_size, data):
    """It fits, and every patch has one of the paths of `encode_each`: at least one stage, and no worse for it."""
    ours = shared(6, 4, beam_size=beam_size)
    image = random_image(height, width)
    least, most = len(ours.compress(image, 1)), len(ours.compress(image, num_quantizers))
    max_bytes = data.draw(st.integers(least, max(least, most) + 2))
    file = ours.compress(image, num_quantizers, max_bytes)
    assert len(file) <= max_bytes

    indices, (paths, left) = ours.indices(file), ours._paths(image, num_quantizers)
    layers = indices.shape[-1]
    assert (paths[..., layers:] >= 0).any() or layers == num_quantizers
    chosen = (paths[..., :layers] == indices.unsqueeze(-2)).all(-1) & (paths[..., layers:] == -1).all(-1)
    assert (chosen.sum(-1) == 1).all()
    if file != ours.compress(image, num_quantizers):  # which has all stages everywhere
        assert (left[chosen] <= left[..., 0].flatten() + 1e-6).all()
    assert torch.equal(ours.decompress(file), ours.decode(indices, height, width))
    for stages in range(1, layers + 1):
        assert torch.equal(ours.indices(file, stages), indices[..., :stages])


def test_stopping_early_weighs_error_against_stages():
    """Counted by hand: three vectors, three stages."""
    left = torch.tensor([[9.0, 5.0, 4.0], [9.0, 8.5, 0.0], [1.0, 1.5, 0.9]])
    paths = torch.arange(9).view(3, 1, 3).expand(3, 3, 3).tril()
    paths = torch.where(torch.ones(3, 3).tril() > 0, torch.arange(9).view(3, 1, 3), -1)
    for price, expected in (
        (0.0, [[0, 1, 2], [3, 4, 5], [6, 7, 8]]),
        (0.5, [[0, 1, 2], [3, 4, 5], [6, -1, -1]]),
        (2.0, [[0, 1, -1], [3, 4, 5], [6, -1, -1]]),
        (4.2, [[0, -1, -1], [3, 4, 5], [6, -1, -1]]),
        (5.0, [[0], [3], [6]]),
    ):
        assert codec.stop_early(paths, left, price).tolist() == expected


def test_bytes_go_where_they_help():
    image = torch.cat([smooth_image(128, 64), random_image(128, 64)], -1)
    ours = shared(64, 4)
    file = ours.compress(image, max_bytes=len(ours.compress(image, 2)))
    stages = (ours.indices(file) >= 0).sum(-1).float()
    assert stages[:, :16].mean() < stages[:, 16:].mean() - 0.5


def test_more_bytes_are_not_worse():
    image, ours = random_image(60, 70), shared(6, 4)
    least, most = (len(ours.compress(image, stages)) for stages in (1, 4))
    lost = []
    for max_bytes in torch.linspace(least, most, 9).long().tolist():
        indices = ours.indices(ours.compress(image, max_bytes=max_bytes))
        latents = ours.model.latents(image[None])
        lost.append((ours.model.quantizer.decode(indices[None]) - latents).square().mean().item())
    assert lost == sorted(lost, reverse=True) and lost[-1] < 0.5 * lost[0]


def test_too_few_bytes():
    image = random_image(30, 40)
    least = len(shared().compress(image, 1))
    assert len(shared().compress(image, max_bytes=least)) <= least
    with pytest.raises(ValueError, match=f"max_bytes must be at least {least}, one stage for each patch, got 20"):
        shared().compress(image, max_bytes=20)
    for wrong in (0, -3, 2.5):
        with pytest.raises(ValueError, match=f"max_bytes must be a whole number .*, got {wrong}"):
            shared().compress(image, max_bytes=wrong)


def test_the_bytes_of_version_2_stay_what_they_are():
    """On every machine, with every version of the libraries: else VERSION must rise."""
    number = torch.arange(7 * 9 * 3)
    grid = (number * number % 11 % 5).view(7, 9, 3)
    stages = IndexPrior(5, 3).fit([grid] * 40).stages
    grid = grid.masked_fill(torch.arange(3) > (number[::3] % 4).view(7, 9, 1), -1)
    assert [layers.write(stage, grid.numpy()).hex() for stage in stages] == [
        "2a125aa355aaa0ad952c3b2f71c4fcb9",
        "45f6565f0295f444872dd95312f101bd",
        "ea514be4a878eadb9148a2c1",
    ]
    assert container.pack("0123cdef", 2, 300, [b"abc", b""]).hex() == (
        "525651020123cdef02002c0102030000007bdc2b5661626300000000eb3c8683"
    )


# What a file tells


def test_info(file):
    about = codec.info(file)
    assert about[:5] == (container.VERSION, shared().fingerprint, 9, 14, 3)
    assert len(about.layer_bytes) == 3
    assert (about.num_bytes, about.fault) == (len(file), "")
    assert about.bits_per_pixel == 8 * len(file) / 9 / 14
    assert layer_ends(file)[-1] == len(file)
    assert re.fullmatch("[0-9a-f]{8}", about.fingerprint)


def test_the_header_is_small():
    image = random_image(1, 1)
    assert len(shared().compress(image, 1)) <= 25


@pytest.mark.parametrize("layers", [0, 1, 2])
def test_info_and_prefixes_of_a_file_cut_between_layers(file, layers):
    cut = file[: [container.HEADER.size, *layer_ends(file)][layers]]
    if layers:
        assert codec.info(cut).layer_bytes == codec.info(file).layer_bytes[:layers]
        assert codec.info(cut).num_quantizers == 3
        assert codec.info(cut).fault == "cut short"
        damaged = cut + bytes(len(file) - len(cut))
        assert codec.info(damaged).fault == "damaged" and codec.info(damaged).num_bytes == len(file)
        assert codec.truncate(cut, layers) == codec.truncate(file, layers)
    else:
        with pytest.raises(CodecError, match="The file is cut short: its first layer is not whole"):
            codec.info(cut)


def test_a_file_cut_anywhere(file):
    """What is whole can be read; the rest is refused with a sentence that says how much that is."""
    image, ends = random_image(9, 14), layer_ends(file)
    for length in range(len(file)):
        whole = sum(end <= length for end in ends)
        with pytest.raises(CodecError, match="The file is cut short") as refused:
            shared().decompress(file[:length])
        for stages in range(1, whole + 1):
            assert torch.equal(shared().decompress(file[:length], stages), expected(shared().model, image, stages))
        for stages in range(whole + 1, 4):
            with pytest.raises(CodecError, match="The file is cut short"):
                shared().decompress(file[:length], stages)
        if whole:
            assert f"of its 3 layers {whole} can be read, so num_quantizers = {whole} still" in str(refused.value)
        else:
            assert "no picture" in str(refused.value)


def test_every_flipped_bit_is_refused(file):
    """And the layers before it can still be read."""
    image, ends = random_image(9, 14), layer_ends(file)
    for position in range(len(file)):
        for bit in range(8):
            damaged = bytearray(file)
            damaged[position] ^= 1 << bit
            with pytest.raises(CodecError):
                shared().decompress(bytes(damaged))
            whole = sum(end <= position for end in ends)
            if whole:
                restored = shared().decompress(bytes(damaged), whole)
                assert torch.equal(restored, expected(shared().model, image, whole))


def test_layers_that_changed_places(file):
    first, second, third = layer_ends(file)
    with pytest.raises(CodecError, match="The file is damaged: of its 3 layers 1 can be read"):
        shared().decompress(file[:first] + file[second:third] + file[first:second])


@pytest.mark.parametrize("content", [b"\x89PNG\r\n\x1a\n" + bytes(40), b"rvq" + bytes(40), b"hello", bytes(100)])
def test_a_foreign_file(content):
    for read in (shared().decompress, codec.info, lambda file: codec.truncate(file, 1)):
        with pytest.raises(CodecError, match=r"This is not a file of rvq_tutorial\.codec\."):
            read(content)


@given(content=st.binary(max_size=60))
@settings(deadline=None)
def test_any_bytes_are_refused(content):
    with pytest.raises(CodecError):
        shared().decompress(content)
    with pytest.raises(CodecError):
        shared().decompress(b"RVQ\2" + content)


@pytest.mark.parametrize(("version", "age"), [(3, "A newer"), (255, "A newer"), (1, "An older"), (0, "An older")])
def test_another_version(file, version, age):
    sentence = f"{age} rvq_tutorial wrote the file: it has version {version}, this one reads 2"
    with pytest.raises(CodecError, match=sentence):
        codec.info(file[:3] + bytes([version]) + file[4:])


def test_another_models_file(file):
    with pytest.raises(CodecError, match=r"written with another model: its fingerprint is [0-9a-f]{8}, this model's"):
        make_codec(seed=1).decompress(file)


def test_the_fingerprint_follows_all_that_decoding_depends_on():
    def changed(change):
        ours = make_codec()
        with torch.no_grad():
            change(ours)
        return ours.fingerprint

    def decoder(ours):
        ours.model.decoder.blocks[0].layers[1].bias[0] += 1e-3

    def codebook(ours):
        ours.model.quantizer.stages[2].vectors[5, 4] += 1e-3

    def frequency(ours):
        ours.prior.stages[1].frequency[0] += 1

    def votes(ours):
        ours.prior.stages[0].votes[0, 1, 2] += 1

    def stride(ours):
        ours.model.encoder.stride = 8

    same = make_codec().fingerprint
    assert len({same, *map(changed, (decoder, codebook, frequency, votes, stride))}) == 6
    assert changed(lambda ours: ours.model.quantizer.stages[0].usage.add_(1)) == same
    assert changed(lambda ours: ours.model.train()) == same


@pytest.mark.parametrize(("height", "width"), [(0, 5), (5, 0), (0, 0)])
def test_a_header_that_promises_nothing(height, width):
    forged = container.pack(shared().fingerprint, height, width, [bytes(4)])
    for read in (shared().decompress, codec.info, lambda file: codec.truncate(file, 1)):
        with pytest.raises(CodecError, match=f"The file is damaged: it promises {height} × {width} pixels"):
            read(forged)


def test_more_pixels_or_layers_than_the_codec_reads(file):
    forged = container.pack(shared().fingerprint, 4, 4, [bytes(4)] * 4)
    with pytest.raises(CodecError, match="in 4 layers; this model reads up to 134217728 pixels in up to 3 layers"):
        shared().decompress(forged)
    ours = Codec(shared().model, shared().prior)
    ours.max_pixels = 9 * 14 - 1
    with pytest.raises(CodecError, match="promises 9 × 14 pixels in 3 layers; this model reads up to 125 pixels"):
        ours.decompress(file)
    with pytest.raises(ValueError, match="image must have up to 125 pixels"):
        ours.compress(random_image(9, 14))
    ours.max_pixels += 1
    assert ours.compress(random_image(9, 14)) == file and ours.decompress(file).shape == (3, 9, 14)


def test_files_that_promise_more_than_they_hold_take_neither_time_nor_memory():
    """Bombs with right checksums, each as large as a header can say, for the model that ships with the course."""
    script = """
import resource, time
from rvq_tutorial import codec
from rvq_tutorial.autoencoder import pretrained
from rvq_tutorial.codec import container
ours = codec.Codec(*pretrained.load())
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
ours.decompress(container.pack(ours.fingerprint, 8, 8, [bytes(4)]))
before, start = peak(), time.monotonic()
for height, width in [(65535, 2048), (2048, 65535), (11585, 11585), (65535, 65535), (3000, 3000)]:
    for layers in ([b""], [bytes(4)], [b"\\xff" * 8], [b""] * 8, [b""] * 255, [b"", bytes(4000)]):
        file = container.pack(ours.fingerprint, height, width, layers)
        about = codec.info(file)
        assert (about.height, about.width, about.fault) == (height, width, "")
        assert codec.truncate(file, 1) == container.pack(ours.fingerprint, height, width, layers[:1])
        for stages in (None, 1):
            try:
                ours.decompress(file, stages)
            except codec.CodecError as error:
                assert "fit" in str(error) or "promises" in str(error)
            else:
                raise AssertionError("It was read.")
print((peak() - before) / 1024, time.monotonic() - start)
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    megabytes, seconds = map(float, run.stdout.split())
    assert megabytes < 60 and seconds < 10  # 30 files, each read four times


@pytest.mark.parametrize("codebook_size", [2, 256, 4096])
def test_no_picture_is_so_flat_that_it_counts_as_a_bomb(codebook_size):
    """Not even one that the prior foresees as well as it can foresee anything: its tables know nothing else."""
    (stage,) = IndexPrior(codebook_size, 1).stages
    stage.frequency.fill_(-(2**10))
    stage.frequency[1] = 0
    grid = np.ones((100, 400, 1), int)
    layer = layers.write(stage, grid)
    bits = grid.size * IndexPrior(codebook_size, 1).least_bits
    assert bits <= 8 * len(layer) + layers.LAST_BITS
    assert bits > 0.995 * 8 * len(layer) - 2 * layers.LAST_BITS  # and the bound is as high as it can be
    restored = np.full_like(grid, -1)
    layers.read(layer, stage, restored)
    np.testing.assert_array_equal(restored, grid)


@pytest.mark.parametrize("shade", [0.0, 0.5, 1.0])
def test_a_flat_photo_comes_back(shade):
    ours = Codec(*pretrained.load())
    image = torch.full((3, 700, 900), shade)
    assert metrics.psnr(ours.decompress(ours.compress(image, 1)), image) > 20


@given(data=st.data())
@settings(deadline=2000, max_examples=150)
def test_a_file_changed_anywhere_is_a_picture_or_a_sentence(data):
    """With its checksums mended, so that all that comes after them must hold by itself."""
    image = random_image(9, 14)
    about, layers = container.unpack(shared().compress(image))
    for _ in range(data.draw(st.integers(0, 3))):
        number = data.draw(st.integers(0, 2))
        layer = bytearray(layers[number])
        cut = data.draw(st.integers(0, len(layer)))
        layers[number] = bytes(layer[:cut]) + data.draw(st.binary(max_size=8)) + bytes(layer[cut + 3 :])
    sides = st.one_of(st.just(9), st.integers(0, 300), st.integers(0, 2**16 - 1))
    height, width = data.draw(sides), data.draw(sides)
    if height * width > 10**6:  # for a model of six codewords they might be there: read them in the test above
        height %= 1000
        width %= 1000
    forged = container.pack(about.fingerprint, height, width, layers[: data.draw(st.integers(0, 3))])
    try:
        assert shared().decompress(forged).shape == (3, height, width)
    except CodecError as error:
        assert str(error).startswith("The file ")


@pytest.mark.parametrize("layer", [b"", b"\xff", b"\xff" * 4, b"\xff" * 8, bytes(3), bytes(400)])
def test_a_layer_that_no_encoder_writes(layer):
    """Its checksum is right; whatever comes out must be a picture or a sentence."""
    forged = container.pack(shared().fingerprint, 9, 14, [layer])
    try:
        assert shared().decompress(forged).shape == (3, 9, 14)
    except CodecError as error:
        assert "damaged" in str(error)


@pytest.mark.parametrize("stages", [0, 4, -1, 1.5, True])
def test_a_number_of_stages_that_there_is_not(file, stages):
    for call in (
        lambda: shared().decompress(file, stages),
        lambda: shared().compress(random_image(4, 4), stages),
        lambda: codec.truncate(file, stages),
    ):
        with pytest.raises(ValueError, match=f"num_quantizers must be a whole number from 1 to 3, got {stages}"):
            call()


@pytest.mark.parametrize(
    ("image", "error", "message"),
    [
        (random_image(4, 4)[:1], ValueError, r"image must have shape \(3, H, W\), got \(1, 4, 4\)"),
        (random_image(4, 4)[None], ValueError, r"image must have shape \(3, H, W\)"),
        (random_image(4, 4) * 255, ValueError, r"image must have values in \[0, 1\], got .* to 2\d\d"),
        (random_image(4, 4) - 1, ValueError, r"image must have values in \[0, 1\], got -"),
        (torch.full((3, 4, 4), torch.nan), ValueError, "image must be finite"),
        (torch.zeros(3, 4, 4, dtype=torch.uint8), TypeError, "image must be a floating-point tensor"),
        (torch.zeros(3, 0, 4), ValueError, "image must not be empty"),
        (torch.zeros(3, 1, 2**16), ValueError, "sides of up to 65535, got 1 × 65536"),
    ],
)
def test_bad_images_are_named(image, error, message):
    with pytest.raises(error, match=message):
        shared().compress(image)


def test_a_model_and_a_prior_that_do_not_suit():
    model = shared().model
    with pytest.raises(ValueError, match="prior must be for 3 stages of 6 codewords, as the model, got one for 3 of 5"):
        Codec(model, IndexPrior(5, 3))
    with pytest.raises(ValueError, match="got one for 2 of 6"):
        Codec(model, IndexPrior(6, 2))
    single = VQVAE(model.encoder, VectorQuantizer(5, 6, channel_dim=1), model.decoder)
    with pytest.raises(TypeError, match="model must have a ResidualVectorQuantizer, got VectorQuantizer"):
        Codec(single)


# The command


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    pretrained.save(path, shared().model, shared().prior)
    return path


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.png"
    pixels = (255 * smooth_image(30, 41)).byte().permute(1, 2, 0)
    Image.fromarray(pixels.numpy()).save(path)
    return path


def run(*arguments):
    """The command line, in this process: exit code."""
    return codec.main([str(argument) for argument in arguments])


def refused(capsys, *arguments):
    """Run what must fail with exit code 1; → its one sentence."""
    assert run(*arguments) == 1
    out, error = capsys.readouterr()
    assert out == "" and error.endswith("\n") and error.count("\n") == 1
    return error


def terminal(*arguments, **options):
    """The command line, in a process of its own."""
    command = [sys.executable, "-m", "rvq_tutorial.codec", *map(str, arguments)]
    return subprocess.run(command, stderr=subprocess.PIPE, check=False, **options)


def test_from_a_terminal(model_file, photo, tmp_path):
    file, back = tmp_path / "photo.rvq", tmp_path / "back.png"
    for arguments in (("compress", photo, file), ("decompress", file, back)):
        done = terminal(*arguments, "--model", model_file, stdout=subprocess.PIPE)
        assert (done.returncode, done.stderr) == (0, b"") and done.stdout.startswith(str(arguments[-1]).encode())
    wrong = terminal("info", photo, stdout=subprocess.PIPE)
    assert (wrong.returncode, wrong.stdout) == (1, b"")
    assert wrong.stderr == b"info: This is not a file of rvq_tutorial.codec.\n"


def test_there_and_back(capsys, model_file, photo, tmp_path):
    file, back = tmp_path / "photo.rvq", tmp_path / "back.png"
    assert run("compress", photo, file, "--model", model_file) == 0
    said = capsys.readouterr().out

    ours = Codec(*pretrained.load(model_file))
    restored = ours.decompress(file.read_bytes())
    size, quality = file.stat().st_size, metrics.psnr(restored, read_photo(photo))
    assert said == f"{file}: {size} bytes, {8 * size / 30 / 41:.3f} bits per pixel, PSNR {quality:.2f} dB\n"

    assert run("decompress", file, back, "--model", model_file) == 0
    assert capsys.readouterr().out == f"{back}: 30 × 41 pixels\n"
    torch.testing.assert_close(read_photo(back), restored, atol=0.51 / 255, rtol=0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["back.png", "photo.png", "photo.rvq"]


def test_fewer_stages(capsys, model_file, photo, tmp_path):
    file, back = tmp_path / "photo.rvq", tmp_path / "back.bmp"
    assert run("compress", photo, file, "--model", model_file, "--num-quantizers", 2) == 0
    capsys.readouterr()
    assert run("info", file) == 0
    about = codec.info(file.read_bytes())
    rate = 8 * file.stat().st_size / (30 * 41)
    assert capsys.readouterr().out.splitlines() == [
        "version: 2",
        f"fingerprint: {shared().fingerprint}",
        "height: 30",
        "width: 41",
        "num_quantizers: 2",
        f"layer_bytes: {about.layer_bytes}",
        f"num_bytes: {file.stat().st_size}",
        f"bits_per_pixel: {rate:.3f}",
    ]
    assert run("decompress", file, back, "--model", model_file, "--num-quantizers", 1) == 0
    restored = Codec(*pretrained.load(model_file)).decompress(file.read_bytes(), 1)
    torch.testing.assert_close(read_photo(back), restored, atol=0.51 / 255, rtol=0)


def test_at_most_so_many_bytes(capsys, model_file, photo, tmp_path):
    file, image = tmp_path / "photo.rvq", read_photo(photo)
    most = len(shared().compress(image, 1)) + 20
    assert run("compress", photo, file, "--model", model_file, "--max-bytes", most) == 0
    assert file.read_bytes() == shared().compress(image, max_bytes=most) and file.stat().st_size <= most
    capsys.readouterr()
    sentence = refused(capsys, "compress", photo, tmp_path / "no", "--model", model_file, "--max-bytes", 5)
    assert "max_bytes must be at least" in sentence


def test_failures_leave_nothing_behind_and_the_output_as_it_was(capsys, model_file, photo, tmp_path):
    whole = shared().compress(random_image(9, 14))
    files = {
        "cut": whole[:-1],
        "foreign": photo.read_bytes(),
        "newer": whole[:3] + b"\7" + whole[4:],
        "other": make_codec(seed=1).compress(random_image(9, 14)),
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "out.png").write_bytes(b"as it was")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for name in [*files, "missing"]:
        sentence = refused(capsys, "decompress", tmp_path / name, tmp_path / "out.png", "--model", model_file)
        assert sentence.startswith("decompress: ")
    for name in ["cut", "missing"]:
        refused(capsys, "compress", tmp_path / name, tmp_path / "out.png", "--model", model_file)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_picture_that_is_broken(capsys, model_file, photo, tmp_path):
    """Cut or damaged anywhere, it is read as far as Pillow can, or refused with a sentence."""
    content, out = photo.read_bytes(), tmp_path / "out.rvq"
    refusals = 0
    for position in range(0, len(content), 3):
        for broken in (content[:position], content[:position] + b"\xa5\x5a" + content[position + 2 :]):
            photo.write_bytes(broken)
            code = run("compress", photo, out, "--model", model_file)
            said, error = capsys.readouterr()
            assert (code, error == "", said == "") in [(0, True, False), (1, False, True)]
            assert error.count("\n") == code
            refusals += code
    assert refusals > 20


def test_a_picture_with_too_many_pixels(capsys, model_file, tmp_path):
    """Its header promises 40,000 × 40,000 pixels, its data hold none."""
    header = struct.pack(">IIBBBBB", 40_000, 40_000, 8, 2, 0, 0, 0)
    chunks = b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in ((b"IHDR", header), (b"IDAT", b""), (b"IEND", b""))
    )
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)
    refused(capsys, "compress", tmp_path / "bomb.png", tmp_path / "out", "--model", model_file)


def test_outputs_that_cannot_be_written(capsys, model_file, photo, tmp_path):
    (tmp_path / "folder").mkdir()
    for output in (tmp_path / "folder", tmp_path / "missing" / "out.rvq"):
        refused(capsys, "compress", photo, output, "--model", model_file)
    (tmp_path / "in.rvq").write_bytes(shared().compress(random_image(9, 14)))
    for name in ("out", "out.txt"):
        sentence = refused(capsys, "decompress", tmp_path / "in.rvq", tmp_path / name, "--model", model_file)
        if pretrained.load(model_file)[1] is not None:
            assert "The output's name must end like a picture's, in .png for instance" in sentence
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "in.rvq", "photo.png"]


def test_info_of_a_file_that_was_cut_short(capsys, file, tmp_path):
    path = tmp_path / "cut.rvq"
    path.write_bytes(file[: layer_ends(file)[1] + 3])
    assert run("info", path) == 0
    assert capsys.readouterr().out.endswith("\nThe file is cut short: of its 3 layers 2 can be read.\n")
    path.write_bytes(file[:-1] + b"\0")
    assert run("info", path) == 0
    assert capsys.readouterr().out.endswith("\nThe file is damaged: of its 3 layers 2 can be read.\n")


def test_truncate_from_the_command_line(capsys, file, tmp_path):
    long, short = tmp_path / "long.rvq", tmp_path / "short.rvq"
    long.write_bytes(file)
    assert run("truncate", long, short, "--num-quantizers", 2) == 0
    assert short.read_bytes() == codec.truncate(file, 2)
    size = short.stat().st_size
    assert capsys.readouterr().out == f"{short}: {size} bytes, {8 * size / 9 / 14:.3f} bits per pixel\n"
    assert "from 1 to 3, got 4" in refused(capsys, "truncate", long, short, "--num-quantizers", 4)
    assert short.read_bytes() == codec.truncate(file, 2)
    with pytest.raises(SystemExit):  # without a number
        run("truncate", long, short)
    assert "--num-quantizers" in capsys.readouterr().err


def test_the_quality_is_that_of_what_was_read(capsys, model_file, tmp_path):
    """Of a picture with transparent parts: on white, which is said."""
    pixels = torch.cat([255 * smooth_image(30, 41), torch.linspace(0, 255, 41).expand(1, 30, 41)])
    ghost, file = tmp_path / "ghost.png", tmp_path / "ghost.rvq"
    Image.fromarray(pixels.byte().permute(1, 2, 0).numpy()).save(ghost)
    assert run("compress", ghost, file, "--model", model_file) == 0
    remark, report = capsys.readouterr().out.splitlines()
    assert remark == f"{ghost} is partly transparent: it was put on white."
    restored = shared().decompress(file.read_bytes())
    alpha = pixels[3:].byte() / 255
    on_white = pixels[:3].byte() / 255 * alpha + 1 - alpha
    assert report.endswith(f"PSNR {metrics.psnr(restored, on_white):.2f} dB")


def test_the_output_may_not_be_what_is_read(capsys, model_file, photo, file, tmp_path):
    """By its own name, by another way to it, by a link, by a second name of the same file."""
    (tmp_path / "in.rvq").write_bytes(file)
    for source in (photo, tmp_path / "in.rvq"):
        content = source.read_bytes()
        symbolic, hard = tmp_path / f"symbolic{source.suffix}", tmp_path / f"hard{source.suffix}"
        symbolic.symlink_to(source.name)
        os.link(source, hard)
        commands = [["compress"]] if source == photo else [["decompress"], ["truncate", "--num-quantizers", 1]]
        for command, *options in commands:
            options = options or ["--model", model_file]
            for output in (source, tmp_path / "." / ".." / tmp_path.name / source.name, symbolic, hard):
                sentence = refused(capsys, command, source, output, *options)
                wanted = f"output must be another file than input, got {output}, which is {source}"
                assert sentence == f"{command}: {wanted}\n"
                assert source.read_bytes() == content and symbolic.is_symlink() and hard.samefile(source)
    model = tmp_path / "model"
    model.write_bytes(model_file.read_bytes())
    assert "another file than model" in refused(capsys, "compress", photo, model, "--model", model)
    assert model.read_bytes() == model_file.read_bytes()


@NEEDS_POSIX
def test_a_file_to_the_standard_output_has_nothing_else_in_it(model_file, photo):
    """What there is to say goes elsewhere."""
    written = terminal("compress", photo, "/dev/stdout", "--model", model_file, stdout=subprocess.PIPE)
    assert written.returncode == 0
    assert written.stdout == shared().compress(read_photo(photo))
    assert re.fullmatch(rb"/dev/stdout: [\d,]+ bytes, .* dB\n", written.stderr)
    assert os.path.exists("/dev/stdout")


@NEEDS_POSIX
def test_files_come_from_pipes(file, tmp_path):
    read = terminal("info", "/dev/stdin", input=file, stdout=subprocess.PIPE)
    assert read.returncode == 0 and b"num_bytes: %d\n" % len(file) in read.stdout


@NEEDS_A_FULL_DISK
def test_a_full_disk_is_one_sentence(model_file, photo, file, tmp_path):
    """For the output, and for the report."""
    (tmp_path / "full").symlink_to("/dev/full")
    (tmp_path / "in.rvq").write_bytes(file)
    with open("/dev/full", "wb") as full:
        output = terminal("compress", photo, tmp_path / "full", "--model", model_file, stdout=subprocess.PIPE)
        report = terminal("info", tmp_path / "in.rvq", stdout=full)
    assert (output.returncode, output.stdout) == (1, b"")
    assert output.stderr.decode() == f"compress: {tmp_path / 'full'}: No space left on device\n"
    assert report.returncode == 1
    assert report.stderr == b"info: The report can't be written: No space left on device\n"


@NEEDS_POSIX
def test_an_interrupt_is_one_sentence(model_file, tmp_path):
    """A real one, while the command waits for its input; what stood there stays."""
    script = f"""
import os, signal, sys, threading
from rvq_tutorial import codec
signal.signal(signal.SIGINT, signal.default_int_handler)
threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
sys.exit(codec.main(["decompress", {str(tmp_path / "pipe")!r}, {str(tmp_path / "out.png")!r}]))
"""
    (tmp_path / "out.png").write_bytes(b"as it was")
    os.mkfifo(tmp_path / "pipe")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "decompress: interrupted\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.png", "pipe"]
    assert (tmp_path / "out.png").read_bytes() == b"as it was"


def test_a_model_that_cannot_be_read(capsys, photo, tmp_path):
    refused(capsys, "compress", photo, tmp_path / "out", "--model", tmp_path / "missing")
    refused(capsys, "compress", photo, tmp_path / "out", "--model", photo)
