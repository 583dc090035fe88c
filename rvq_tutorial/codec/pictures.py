"""Picture files to photos, tensors (3, H, W) with values in [0, 1], and back, by way of Pillow."""

import io
import warnings
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from rvq_tutorial.language import said

EIGHT_BITS = {"1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr", "LAB", "HSV"}
WITH_ALPHA = {"LA", "La", "PA", "RGBA", "RGBa"}
BITS, BLACK_AND_WHITE = 258, 262  # of a TIFF: how many a channel, and which of them is 0


class Picture(NamedTuple):
    photo: Tensor  # (3, H, W), float32 in [0, 1], upright
    remarks: list[str]  # sentences on what the file holds and the photo does not


def read_photo(path: str | Path) -> Tensor:
    """A picture file of your own, in any format Pillow reads: (3, H, W), float32 in [0, 1], upright.

    Transparent parts are put on white; of an animation it is the first picture; colour profiles are not applied.

    Raises:
        FileNotFoundError, ValueError: there is no such file, it isn't a picture, it is damaged, it has more pixels than
            `PIL.Image.MAX_IMAGE_PIXELS`, or its pixels are numbers of which nothing says what is white.
    """
    return read_picture(path).photo


def read_picture(file: str | Path | BinaryIO, name: str | Path = "") -> Picture:
    """The photo of `read_photo`, and what the file holds besides. The name is what errors call it: else, its path."""
    name = name or file
    remarks = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of small faults that do not keep Pillow from reading it
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with Image.open(file) as image:
                if getattr(image, "is_animated", False):
                    remarks.append(said("{name} holds several pictures: the first was read.", name=name))
                white = _white(image)
                upright = ImageOps.exif_transpose(image)
                pixels, alpha = _numbers(upright, white)
        except FileNotFoundError:
            sentence = said("path must name a picture file; there is no file {name}", name=name)
            raise FileNotFoundError(sentence) from None
        except UnidentifiedImageError:
            sentence = said("{name} is no picture that Pillow can read: save it as JPEG or PNG", name=name)
            raise ValueError(sentence) from None
        except (Image.DecompressionBombWarning, Image.DecompressionBombError):
            sentence = said(
                "{name} has more than {most:,} pixels: if you trust it, raise PIL.Image.MAX_IMAGE_PIXELS",
                name=name,
                most=Image.MAX_IMAGE_PIXELS,
            )
            raise ValueError(sentence) from None
        except Exception as error:  # of every kind: Pillow's ways to say that a file is broken
            if isinstance(error, OSError) and error.filename:  # the system's words: it may not be opened
                raise
            raise ValueError(said("{name} is no whole picture: {error}", name=name, error=error)) from error
    if white is None:
        raise ValueError(
            said(
                "{name} does not say which number is white, as a {format} file of mode {mode}: "
                "save it with 8 bits a channel",
                name=name,
                format=image.format,
                mode=image.mode,
            )
        )
    pixels /= white
    if alpha is not None and alpha.min() < 1:
        remarks.append(said("{name} is partly transparent: it was put on white.", name=name))
        pixels = alpha * pixels + (1 - alpha)
    return Picture(torch.from_numpy(pixels).permute(2, 0, 1).expand(3, -1, -1), remarks)


def picture_file(photo: Tensor, suffix: str) -> bytes:
    """A photo (C, H, W), of three channels or one, as a picture file of the kind that the suffix names: ".png", say."""
    kind = Image.registered_extensions().get(suffix.lower())
    if kind not in Image.SAVE:
        raise ValueError(
            said("The output's name must end like a picture's, in .png for instance, got {suffix!r}.", suffix=suffix)
        )
    channels = [(255 * channel).round_().byte() for channel in photo.expand(3, -1, -1)]  # one by one, to save memory
    buffer = io.BytesIO()
    Image.fromarray(torch.stack(channels, dim=-1).numpy()).save(buffer, kind)
    return buffer.getvalue()


def _white(image: Image.Image) -> int | None:
    """The number that stands for white, once Pillow has brought what has 8 bits to RGB; None where nobody knows."""
    if image.mode in EIGHT_BITS | WITH_ALPHA:
        return 255
    sixteen = image.mode.startswith("I;16") or image.mode == "I"  # where Pillow keeps 16 bits of grey
    if sixteen and image.format in ("PNG", "PPM"):
        return 2**16 - 1
    if sixteen and image.format == "TIFF" and (image.tag_v2[BITS], image.tag_v2[BLACK_AND_WHITE]) == ((16,), 1):
        return 2**16 - 1
    return None


def _numbers(image: Image.Image, white: int | None) -> tuple[np.ndarray, np.ndarray | None]:
    """Colours (h, w, 3), or greys (h, w, 1), from 0 to white, and how opaque each is, (h, w, 1) from 0 to 1."""
    transparent = image.info.get("transparency")
    if white != 255:
        greys = np.array(image, np.float32)[..., None]
        return greys, None if transparent is None else (greys != transparent).astype(np.float32)
    if transparent is None and image.mode not in WITH_ALPHA:
        return np.array(image.convert("RGB"), np.float32), None
    image = image.convert("LA") if image.mode == "La" else image  # Pillow knows no shorter way
    colours = np.array(image.convert("RGBA"), np.float32)
    return colours[..., :3], colours[..., 3:] / 255
