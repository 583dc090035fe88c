import functools
import re
import struct
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from rvq_tutorial import ResidualVectorQuantizer, VectorQuantizer, codec, metrics, pretrained
from rvq_tutorial.codec import Codec, CodecError
from rvq_tutorial.data import read_photo
from rvq_tutorial.models import VQVAE, Decoder, Encoder
from rvq_tutorial.prior import IndexPrior

STRIDE = 4


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
    return [codec.HEADER.size + sum(sizes[: m + 1]) + (m + 1) * codec.LAYER.size for m in range(len(sizes))]


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
        patch.setattr(codec, "TILE", 4 * STRIDE)
        indices = ours.encode(image)
        tiled = ours.decode(indices, height, width)
        assert torch.equal(ours.decompress(ours.compress(image)), tiled)
    with torch.no_grad():
        assert torch.equal(indices, ours.model.encode(image[None])[0])
    torch.testing.assert_close(tiled, expected(ours.model, image), atol=1e-5, rtol=0)


def test_a_photo_of_several_tiles(monkeypatch):
    ours = shared(num_blocks=2)
    image = random_image(codec.TILE + 70, 33)
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
        codec._read(codec._write(stage, grid), stage, restored)
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
    assert [codec._write(stage, grid.numpy()).hex() for stage in stages] == [
        "2a125aa355aaa0ad952c3b2f71c4fcb9",
        "45f6565f0295f444872dd95312f101bd",
        "ea514be4a878eadb9148a2c1",
    ]
    assert codec._pack("0123cdef", 2, 300, [b"abc", b""]).hex() == (
        "525651020123cdef02002c0102030000007bdc2b5661626300000000eb3c8683"
    )


# What a file tells


def test_info(file):
    about = codec.info(file)
    assert about[:5] == (codec.VERSION, shared().fingerprint, 9, 14, 3)
    assert len(about.layer_bytes) == 3
    assert layer_ends(file)[-1] == len(file)
    assert re.fullmatch("[0-9a-f]{8}", about.fingerprint)


def test_the_header_is_small():
    image = random_image(1, 1)
    assert len(shared().compress(image, 1)) <= 25


@pytest.mark.parametrize("layers", [0, 1, 2])
def test_info_and_prefixes_of_a_file_cut_between_layers(file, layers):
    cut = file[: [codec.HEADER.size, *layer_ends(file)][layers]]
    if layers:
        assert codec.info(cut).layer_bytes == codec.info(file).layer_bytes[:layers]
        assert codec.info(cut).num_quantizers == 3
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


@pytest.mark.parametrize(("height", "width"), [(0, 5), (5, 0), (2**16 - 1, 2**16 - 1)])
def test_a_header_that_promises_the_impossible(height, width):
    """Its checksum is right, and no memory is taken for it."""
    forged = codec._pack(shared().fingerprint, height, width, [bytes(4)])
    with pytest.raises(CodecError, match=f"The file promises {height} × {width} pixels in 1 layers; this model reads"):
        shared().decompress(forged)


def test_more_layers_than_the_model_has(file):
    forged = codec._pack(shared().fingerprint, 4, 4, [bytes(4)] * 4)
    with pytest.raises(CodecError, match="in 4 layers; this model reads 1 to 134217728 pixels in up to 3 layers"):
        shared().decompress(forged)


@pytest.mark.parametrize("layer", [b"", b"\xff", b"\xff" * 4, b"\xff" * 8, bytes(3), bytes(400)])
def test_a_layer_that_no_encoder_writes(layer):
    """Its checksum is right; whatever comes out must be a picture or a sentence."""
    forged = codec._pack(shared().fingerprint, 9, 14, [layer])
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


def test_from_a_terminal(model_file, photo, tmp_path):
    def terminal(*arguments):
        command = [sys.executable, "-m", "rvq_tutorial.codec", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False)

    written = terminal("compress", photo, tmp_path / "photo.rvq", "--model", model_file)
    assert (written.returncode, written.stderr) == (0, "")
    read = terminal("decompress", tmp_path / "photo.rvq", tmp_path / "back.png", "--model", model_file)
    assert (read.returncode, read.stderr) == (0, "")
    wrong = terminal("info", photo)
    assert (wrong.returncode, wrong.stdout) == (1, "")
    assert wrong.stderr == "info: This is not a file of rvq_tutorial.codec.\n"


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
    assert capsys.readouterr().out.splitlines() == [f"{name}: {value}" for name, value in about._asdict().items()]
    assert about.num_quantizers == 2
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
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", codec.zlib.crc32(kind + body))
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


def test_a_model_that_cannot_be_read(capsys, photo, tmp_path):
    refused(capsys, "compress", photo, tmp_path / "out", "--model", tmp_path / "missing")
    refused(capsys, "compress", photo, tmp_path / "out", "--model", photo)


def test_the_package_does_not_import_it():
    script = "import sys, rvq_tutorial; print({'constriction', 'PIL', 'rvq_tutorial.codec'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"
