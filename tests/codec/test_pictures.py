import io
import struct
import zlib

import numpy as np
import PIL
import pytest
import torch
from PIL import Image

from rvq_tutorial.codec.pictures import picture_file, read_photo, read_picture

RAMP = np.arange(256).reshape(8, 32)
PILLOW_13 = pytest.mark.skipif(
    int(PIL.__version__.partition(".")[0]) < 13, reason="Pillow reads no such TIFF before 13"
)


def saved(path, image, **options):
    image.save(path, **options)
    return path


def png(pixels, depth, colour_type, transparent=b""):
    """A PNG by hand, of rows (h, bytes): Pillow writes only some of those that it reads."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    height, width = pixels.shape[:2]
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    parts = [(b"IHDR", header), (b"tRNS", transparent), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(kind, body) for kind, body in parts if body or kind == b"IEND")


def mode_of(path):
    with Image.open(path) as image:
        return image.mode


def grey(values):
    return torch.tensor(np.asarray(values, np.float32)).expand(3, -1, -1)


def colours():
    """Muted ones, which every 8-bit mode can hold: (8, 32, 3)."""
    return np.stack([60 + RAMP // 2, 60 + RAMP[::-1] // 2, np.full_like(RAMP, 100)], -1).astype(np.uint8)


# Modes


@pytest.mark.parametrize(
    ("mode", "suffix", "error"),
    [
        ("RGB", ".png", 0),
        ("RGB", ".webp", 12),
        ("CMYK", ".tif", 1),
        ("CMYK", ".jpg", 8),  # as Adobe writes it: inverted
        pytest.param("YCbCr", ".tif", 3, marks=PILLOW_13),
        ("LAB", ".tif", 8),
    ],
)
def test_colours_of_every_mode(tmp_path, mode, suffix, error):
    smooth = Image.fromarray(colours()).resize((64, 16), Image.Resampling.BICUBIC)
    if mode == "LAB":
        from PIL import ImageCms

        srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        image = ImageCms.profileToProfile(smooth, srgb, lab, outputMode="LAB")
    else:
        image = smooth.convert(mode)
    options = {"quality": 100, "subsampling": 0} if suffix == ".jpg" else {}
    path = saved(tmp_path / f"picture{suffix}", image, **options)
    assert mode_of(path) in (mode, "RGB")
    photo, remarks = read_picture(path)
    assert remarks == [] and photo.dtype == torch.float32
    wanted = torch.tensor(np.array(smooth)).permute(2, 0, 1)
    assert (255 * photo - wanted).abs().max() <= error + 1e-3


@pytest.mark.parametrize("mode", ["1", "L", "P"])
def test_greys(tmp_path, mode):
    values = np.where(RAMP > 99, 255, 0) if mode == "1" else RAMP
    image = Image.fromarray(values.astype(np.uint8)).convert(mode)
    photo, remarks = read_picture(saved(tmp_path / "grey.png", image))
    assert mode_of(tmp_path / "grey.png") == mode
    assert torch.equal(photo, grey(values) / 255) and remarks == []


@pytest.mark.parametrize(("order", "suffix"), [("<u2", ".png"), ("<u2", ".tif"), (">u2", ".tif"), ("<u2", ".pgm")])
def test_sixteen_bits_keep_all_of_them(tmp_path, order, suffix):
    """A ramp over the whole range, which once came back white but for its first 256 steps."""
    ramp = np.arange(0, 2**16, 37)[:1740].reshape(-1, 6)
    image = Image.fromarray(ramp.astype(order))
    photo, remarks = read_picture(saved(tmp_path / f"ramp{suffix}", image))
    torch.testing.assert_close(photo, grey(ramp) / 65535, rtol=0, atol=1e-6)
    assert remarks == []


def test_sixteen_bits_a_colour(tmp_path):
    """Pillow keeps eight of them."""
    ramp = np.arange(0, 2**16, 50, dtype=">u2")[:1200].reshape(20, 20, 3)
    (tmp_path / "ramp.png").write_bytes(png(ramp, 16, 2))
    wanted = torch.tensor(ramp.astype(np.float32)).permute(2, 0, 1) / 65535
    torch.testing.assert_close(read_photo(tmp_path / "ramp.png"), wanted, rtol=0, atol=1 / 255)


@pytest.mark.parametrize(
    "pixels",
    [
        RAMP.astype(np.int32),
        RAMP.astype(np.int32) * 2**20,
        RAMP.astype(np.float32) / 255,
        RAMP.astype(np.float32),
    ],
)
def test_numbers_that_do_not_say_what_is_white_are_refused(tmp_path, pixels):
    path = saved(tmp_path / "numbers.tif", Image.fromarray(pixels))
    mode = "I" if pixels.dtype == np.int32 else "F"
    with pytest.raises(
        ValueError, match=rf"numbers\.tif does not say .* as a TIFF file of mode {mode}: save it with 8 "
    ):
        read_photo(path)


def test_sixteen_bits_with_white_at_zero_are_refused(tmp_path):
    """Pillow does not turn them over, as it does with eight bits."""
    from PIL.TiffImagePlugin import ImageFileDirectory_v2

    tags = ImageFileDirectory_v2()
    tags[262] = 0
    path = saved(tmp_path / "negative.tif", Image.fromarray(RAMP.astype(np.uint16)), tiffinfo=tags)
    content = path.read_bytes()
    black_is_zero, white_is_zero = (struct.pack("<HHII", 262, 3, 1, kind) for kind in (1, 0))
    path.write_bytes(content.replace(black_is_zero, white_is_zero))
    with Image.open(path) as image:
        assert image.tag_v2[262] == 0
    with pytest.raises(ValueError, match="which number is white"):
        read_photo(path)


# Transparency


@pytest.mark.parametrize("mode", ["LA", "PA", "RGBA", pytest.param("La", marks=PILLOW_13), "RGBa"])
def test_transparency_is_put_on_white_and_said(tmp_path, mode):
    """Black, opaque at the left, transparent at the right."""
    pixels = np.zeros((8, 32, 4), np.uint8)
    pixels[..., 3] = np.linspace(255, 0, 32).round()
    image, path = Image.fromarray(pixels), tmp_path / "ghost.tif"
    if mode == "PA":
        image = Image.new("P", (32, 8))
        image.putalpha(Image.fromarray(pixels[..., 3]))
    saved(path, image.convert("LA") if mode in ("LA", "La") else image)
    if mode in ("La", "RGBa"):  # the same file, of which one tag says that colours are multiplied by alpha: 0 stays 0
        apart, multiplied = (struct.pack("<HHIHH", 338, 3, 1, kind, 0) for kind in (2, 1))
        assert apart in path.read_bytes()
        path.write_bytes(path.read_bytes().replace(apart, multiplied))
    assert mode_of(path) == {"RGBa": "RGBA"}.get(mode, mode)
    photo, remarks = read_picture(path)
    wanted = grey(255 - pixels[..., 3]) / 255
    torch.testing.assert_close(photo, wanted, rtol=0, atol=1e-6)
    assert remarks == [f"{path} is partly transparent: it was put on white."]


@pytest.mark.parametrize("kind", ["palette", "palette with levels", "grey", "colour", "16 bits", "GIF"])
def test_a_transparent_colour(tmp_path, kind):
    """One value of the file stands for nothing: it becomes white, and the rest stays."""
    values = np.array([[0, 90, 180]], np.uint8)
    if kind.startswith("palette") or kind == "GIF":
        image = Image.fromarray(values)
        image = image.convert("P")
        levels = bytes([255] * 90 + [0] + [255] * 165)
        transparency = levels if kind == "palette with levels" else 90
        path = saved(tmp_path / f"a.{'gif' if kind == 'GIF' else 'png'}", image, transparency=transparency)
    else:
        contents = {
            "grey": png(values, 8, 0, struct.pack(">H", 90)),
            "colour": png(np.repeat(values[..., None], 3, -1), 8, 2, struct.pack(">HHH", 90, 90, 90)),
            "16 bits": png(values.astype(">u2") * 257, 16, 0, struct.pack(">H", 90 * 257)),
        }
        path = tmp_path / "a.png"
        path.write_bytes(contents[kind])
    photo, remarks = read_picture(path)
    assert (255 * photo[:, 0]).round().tolist() == [[0, 255, 180]] * 3
    assert remarks == [f"{path} is partly transparent: it was put on white."]


def test_an_opaque_alpha_channel_is_not_worth_a_word(tmp_path):
    pixels = np.dstack([colours(), np.full((8, 32), 255, np.uint8)])
    photo, remarks = read_picture(saved(tmp_path / "opaque.png", Image.fromarray(pixels)))
    assert torch.equal((255 * photo).round().byte(), torch.tensor(colours()).permute(2, 0, 1))
    assert remarks == []


# Files


@pytest.mark.parametrize("suffix", [".gif", ".png", ".webp", ".tif"])
def test_of_several_pictures_the_first_is_read_and_that_is_said(tmp_path, suffix):
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "green", "blue")]
    options = {"lossless": True} if suffix == ".webp" else {}
    path = saved(tmp_path / f"film{suffix}", frames[0], save_all=True, append_images=frames[1:], **options)
    photo, remarks = read_picture(path)
    assert photo[:, 5, 5].tolist() == [1, 0, 0]
    assert remarks == [f"{path} holds several pictures: the first was read."]


@pytest.mark.parametrize("mode", ["RGB", "L", "I;16", "RGBA", "P"])
def test_upright_in_every_mode(tmp_path, mode):
    values = np.array([[0, 90, 180], [40, 50, 60]], np.uint8)
    image = Image.fromarray(values.astype(np.uint16) * 257 if mode == "I;16" else values)
    image = image if mode == "I;16" else image.convert(mode)
    exif = image.getexif()
    exif[0x0112] = 6  # the camera was turned: the top is at the right
    photo = read_photo(saved(tmp_path / "turned.png", image, exif=exif))
    assert torch.equal((255 * photo).round(), grey(np.rot90(values, -1).copy()))


def test_more_pixels_than_pillow_takes_for_safe(tmp_path, monkeypatch):
    """Where Pillow would warn, and where it would refuse; nothing is read of either."""
    path = saved(tmp_path / "large.png", Image.new("L", (100, 30)))
    for limit in (2999, 1000):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(ValueError, match=rf"large\.png has more than {limit:,} pixels: if you trust it"):
            read_photo(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 3000)
    assert read_photo(path).shape == (3, 30, 100)


def test_a_picture_from_memory_is_called_by_the_name_it_was_given():
    buffer = io.BytesIO()
    Image.new("LA", (3, 2)).save(buffer, "PNG")
    photo, remarks = read_picture(buffer, "mine.png")
    assert photo.shape == (3, 2, 3) and photo.min() == 1
    assert remarks == ["mine.png is partly transparent: it was put on white."]
    with pytest.raises(ValueError, match=r"^mine\.heic is no picture that Pillow can read: save it as JPEG or PNG$"):
        read_picture(io.BytesIO(b"\0\0\0\x18ftypheic" + bytes(40)), "mine.heic")
    with pytest.raises(ValueError, match=r"^mine\.png is no whole picture: "):
        read_picture(io.BytesIO(png(RAMP.astype(np.uint8), 8, 0)[:90]), "mine.png")


@pytest.mark.parametrize("suffix", [".png", ".gif", ".jpg", ".tif", ".webp", ".bmp", ".ppm", ".jp2"])
def test_a_broken_picture_is_read_as_far_as_it_goes_or_refused(tmp_path, suffix):
    path = saved(tmp_path / f"a{suffix}", Image.fromarray(colours()))
    content = path.read_bytes()
    generator = np.random.default_rng(0)
    refused = 0
    for _ in range(60):
        broken = bytearray(content)
        for position in generator.integers(0, len(content), 3):
            broken[position] = generator.integers(256)
        path.write_bytes(broken[: generator.integers(1, len(content) + 1)])
        try:
            photo = read_photo(path)
        except ValueError as error:
            assert str(path) in str(error) or "MAX_IMAGE_PIXELS" in str(error)
            refused += 1
        else:
            assert photo.min() >= 0 and photo.max() <= 1
    assert refused > 10


def test_what_the_system_refuses_keeps_its_words(tmp_path):
    with pytest.raises(IsADirectoryError):
        read_photo(tmp_path)
    with pytest.raises(FileNotFoundError, match="there is no file"):
        read_photo(tmp_path / "nothing.png")


@pytest.mark.parametrize("channels", [1, 3])
def test_a_photo_becomes_a_file_and_again_a_photo(tmp_path, channels):
    photo = torch.rand(channels, 5, 7, generator=torch.Generator().manual_seed(0))
    path = tmp_path / "a.png"
    path.write_bytes(picture_file(photo, ".PNG"))
    torch.testing.assert_close(read_photo(path), photo.expand(3, -1, -1), rtol=0, atol=0.501 / 255)
    with pytest.raises(ValueError, match=r"must end like a picture's, in \.png for instance, got '\.txt'"):
        picture_file(photo, ".txt")
