"""Photographs and toy sets that need no download, and two sets of small images that torchvision fetches."""

import errno
import functools
import importlib.util
import math
import os
import sys
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from http import HTTPStatus
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from rvq_tutorial.arguments import check_whole
from rvq_tutorial.codec.pictures import read_photo
from rvq_tutorial.language import said

Split = Literal["train", "held_out"]

# Where each photograph lies inside the package that ships it.
TRAIN_PHOTOS = (
    "skimage/data/astronaut.png",
    "skimage/data/hubble_deep_field.jpg",
    "skimage/data/ihc.png",
    "skimage/data/motorcycle_left.png",
    "skimage/data/retina.jpg",
    "skimage/data/rocket.jpg",
    "sklearn/datasets/images/flower.jpg",
)
HELD_OUT_PHOTOS = (
    "skimage/data/chelsea.png",
    "skimage/data/coffee.png",
    "sklearn/datasets/images/china.jpg",
)

SECONDS_OF_SILENCE = 5  # until a server counts as gone
NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
CROP_SCALES = (1.0, 0.71, 0.5)


class Album(Mapping[str, Tensor]):
    """Photographs by name, each (3, H, W), float32 in [0, 1]. One is read when it is asked for, and then kept."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self._paths = {path.stem: path for path in paths}
        self._kept: dict[str, Tensor] = {}

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._kept:
            self._kept[name] = read_photo(self._paths[name])
        return self._kept[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._paths)

    def __len__(self) -> int:
        return len(self._paths)

    def __or__(self, other: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {**self, **other}

    def read(self) -> list[Tensor]:
        """All of them, and none is kept for it: together they take tens of megabytes."""
        return [self._kept[name] if name in self._kept else read_photo(path) for name, path in self._paths.items()]


class Photos(NamedTuple):
    """Nothing is ever fitted on the held-out ones."""

    train: Album
    held_out: Album


@functools.cache
def photos() -> Photos:
    """The colour photographs that scikit-image and scikit-learn carry in their wheels, split for good by photo.

    Each is read once and shared from then on: clone one before changing it in place.

    Raises:
        FileNotFoundError: scikit-image or scikit-learn is missing, or came without its pictures.
    """
    return Photos(*(Album(map(_path_in_package, paths)) for paths in (TRAIN_PHOTOS, HELD_OUT_PHOTOS)))


def photo_crops(size: int, n: int, seed: int = 0, split: Split = "train") -> Tensor:
    """Square crops of the photographs at random places, scales (1 to 1/2) and flips: (n, 3, size, size) in [0, 1].

    Every photo gives the same number of crops, give or take one. The seed fixes the result.
    """
    check_whole(size, "size")
    check_whole(n, "n")
    if split not in Photos._fields:
        raise ValueError(said("split must be 'train' or 'held_out', got {split!r}", split=split))
    pictures = getattr(photos(), split).read()
    shortest = min(min(picture.shape[1:]) for picture in pictures)
    if size > shortest:
        facts = {"shortest": shortest, "split": split, "size": size}
        raise ValueError(
            said("size must be at most {shortest}, the shortest side of the {split} photos, got {size}", **facts)
        )
    generator = torch.Generator().manual_seed(seed)
    pyramids = [_pyramid(picture, size) for picture in pictures]
    crops = torch.empty(n, 3, size, size)
    for i, crop in enumerate(crops):  # each into its place: a list of them all would double the memory
        crop.copy_(_random_crop(pyramids[i % len(pyramids)], size, generator))
    return crops


def patches(images: Tensor, size: int) -> Tensor:
    """Images (B, C, H, W) cut into squares, row by row, one image after the other: (N, C, size, size).

    Raises:
        ValueError: the images' sides are not multiples of `size`.
    """
    check_whole(size, "size")
    if images.ndim != 4 or any(side % size for side in images.shape[2:]):
        shape = tuple(images.shape)
        raise ValueError(
            said("images must be (B, C, H, W), H and W multiples of {size}, got {shape}", size=size, shape=shape)
        )
    cut = images.unfold(2, size, size).unfold(3, size, size)  # (B, C, h, w, size, size)
    return cut.permute(0, 2, 3, 1, 4, 5).flatten(0, 2)


def toy(name: Literal["gaussian", "blobs", "moons", "ring", "spiral"], n: int, seed: int = 0) -> Tensor:
    """Points in the plane: (n, 2), float32, near the origin, about one unit from it. The seed fixes the result."""
    check_whole(n, "n")
    if name not in _TOYS:
        names = said(", ").join(map(repr, _TOYS))
        raise ValueError(said("{name} must be one of {names}, got {value!r}", name="name", names=names, value=name))
    return _TOYS[name](n, torch.Generator().manual_seed(seed))


def torchvision_images(
    name: Literal["FashionMNIST", "CIFAR10"], n: int = 10_000, split: Split = "train", root: str | Path | None = None
) -> Tensor:
    """The first n images of FashionMNIST (n, 1, 28, 28) or CIFAR10 (n, 3, 32, 32), float32 in [0, 1].

    The first call downloads the set into `root` (torchvision's own layout; by default `rvq-tutorial` in the user's
    cache folder); an interrupted download goes on where it stopped. Where the set can't be had, or there is no room for
    it, one printed sentence says why, and n crops of the photographs come back instead, in the same shape.
    """
    check_whole(n, "n")
    if name not in ("FashionMNIST", "CIFAR10"):
        raise ValueError(said("name must be 'FashionMNIST' or 'CIFAR10', got {name!r}", name=name))
    if split not in Photos._fields:
        raise ValueError(said("split must be 'train' or 'held_out', got {split!r}", split=split))
    try:
        images = _torchvision_pixels(name, _folder(root), train=split == "train")
    except (OSError, HTTPException) as error:  # urllib's own errors and time-outs are OSErrors
        reason = getattr(error, "reason", error)
        reason = getattr(reason, "strerror", None) or reason
        facts = {"name": name, "reason": reason}
        print(said("{name} could not be downloaded ({reason}); using crops of the photographs instead.", **facts))
        size, channels = (28, 1) if name == "FashionMNIST" else (32, 3)
        crops = photo_crops(size, n, split=split)
        return crops if channels == 3 else crops.mean(dim=1, keepdim=True)
    if n > len(images):
        facts = {"most": len(images), "name": name, "split": split, "n": n}
        raise ValueError(said("n must be at most {most}, the number of images in {name} ({split}), got {n}", **facts))
    return images[:n].float() / 255


# Photographs


def _path_in_package(path: str) -> Path:
    """Find a package's file without importing the package, which would take a second."""
    package, _, rest = path.partition("/")
    spec = importlib.util.find_spec(package)
    file = Path(spec.origin).parent / rest if spec and spec.origin else None
    if file is None or not file.is_file():
        project = {"skimage": "scikit-image", "sklearn": "scikit-learn"}[package]
        raise FileNotFoundError(
            said(
                "The photo {photo} was not found: install {project} (pip install {project})",
                photo=rest,
                project=project,
            )
        )
    return file


def _pyramid(picture: Tensor, size: int) -> list[Tensor]:
    """The picture at every crop scale that still holds a whole crop."""
    shapes = [[round(side * scale) for side in picture.shape[1:]] for scale in CROP_SCALES]
    return [picture] + [
        F.interpolate(picture[None], shape, mode="bilinear", antialias=True)[0]
        for shape in shapes[1:]
        if min(shape) >= size
    ]


def _random_crop(pyramid: list[Tensor], size: int, generator: torch.Generator) -> Tensor:
    def below(end: int) -> int:
        return int(torch.randint(end, (), generator=generator))

    picture = pyramid[below(len(pyramid))]
    top, left = (below(side - size + 1) for side in picture.shape[1:])
    crop = picture[:, top : top + size, left : left + size]
    return crop.flip(-1) if below(2) else crop


# Toy sets


def _gaussian(n: int, generator: torch.Generator) -> Tensor:
    return torch.randn(n, 2, generator=generator)


def _polar(radius: Tensor, angle: Tensor) -> Tensor:
    return torch.stack([radius * angle.cos(), radius * angle.sin()], dim=-1)


def _ring(n: int, generator: torch.Generator) -> Tensor:
    angle = 2 * math.pi * torch.rand(n, generator=generator)
    return _polar(1 + 0.08 * torch.randn(n, generator=generator), angle)


def _blobs(n: int, generator: torch.Generator) -> Tensor:
    """Eight equal clusters, evenly spaced on the unit circle."""
    angle = torch.randint(8, (n,), generator=generator) * (math.pi / 4)
    return _polar(torch.ones(n), angle) + 0.1 * torch.randn(n, 2, generator=generator)


def _moons(n: int, generator: torch.Generator) -> Tensor:
    """Two half circles of radius 1, each reaching into the other."""
    angle = math.pi * torch.rand(n, generator=generator)
    side = torch.randint(2, (n, 1), generator=generator) * 2.0 - 1
    arc = _polar(torch.ones(n), angle) - torch.tensor([0.5, 0.25])
    return side * arc + 0.06 * torch.randn(n, 2, generator=generator)


def _spiral(n: int, generator: torch.Generator) -> Tensor:
    """One arm of two turns; the square root spreads the points evenly along it."""
    turn = torch.rand(n, generator=generator).sqrt()
    return _polar(1.5 * turn, 4 * math.pi * turn) + 0.03 * torch.randn(n, 2, generator=generator)


_TOYS = {"gaussian": _gaussian, "blobs": _blobs, "moons": _moons, "ring": _ring, "spiral": _spiral}


# torchvision's sets


def _folder(root: str | Path | None) -> Path:
    """Where the sets lie: by default, in the user's cache folder."""
    root = root or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "rvq-tutorial"
    try:
        return Path(root).expanduser()
    except RuntimeError as error:
        raise FileNotFoundError(said("there is no home folder to keep it in; name another as root")) from error


def _torchvision_pixels(name: str, root: Path, train: bool) -> Tensor:
    """All images of one half of the set, uint8, (N, C, H, W)."""
    from torchvision import datasets

    dataset = getattr(datasets, name)
    try:
        images = dataset(root, train=train)
    except (RuntimeError, AssertionError, ValueError):  # not there, or not whole
        for url, archive, md5 in _archives(dataset, root):
            _download(url, archive, md5)
        _take_away(_unpacked(dataset, root))  # what was cut short before
        try:
            images = dataset(root, train=train, download=True)  # finds the archives, and unpacks them
        except OSError:
            _take_away(_unpacked(dataset, root))
            raise
    pixels = torch.as_tensor(images.data)
    return pixels[:, None] if pixels.ndim == 3 else pixels.permute(0, 3, 1, 2)


def _archives(dataset: type, root: Path) -> list[tuple[str, Path, str]]:
    """URL, place and MD5 sum of each of the set's archives."""
    if dataset.__name__ == "CIFAR10":
        return [(dataset.url, root / dataset.filename, dataset.tgz_md5)]
    folder = root / dataset.__name__ / "raw"
    return [(dataset.mirrors[0] + file, folder / file, md5) for file, md5 in dataset.resources]


def _unpacked(dataset: type, root: Path) -> list[Path]:
    """The files that the set's archives hold."""
    if dataset.__name__ == "CIFAR10":
        return [root / dataset.base_folder / name for name, _ in dataset.train_list + dataset.test_list]
    return [archive.with_suffix("") for _, archive, _ in _archives(dataset, root)]


def _take_away(files: list[Path]) -> None:
    for file in files:
        file.unlink(missing_ok=True)


def _download(url: str, path: Path, md5: str) -> None:
    """Fetch a file whole or not at all; what came before the connection broke waits beside it and is built upon."""
    from torchvision.datasets.utils import check_integrity
    from tqdm import tqdm

    if check_integrity(path, md5):
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    start = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"})
    with _answer(request) as response:
        resumed = response.status == HTTPStatus.PARTIAL_CONTENT
        bar = tqdm(
            desc=path.name,
            initial=start if resumed else 0,
            total=response.length + (start if resumed else 0),
            unit="B",
            unit_scale=True,
            file=sys.stdout,
        )
        try:
            with bar, part.open("ab" if resumed else "wb") as file:
                while chunk := response.read(1 << 16):
                    file.write(chunk)
                    bar.update(len(chunk))
        except OSError as error:
            if error.errno in NO_ROOM:
                part.unlink()
            raise
    if part.stat().st_size < bar.total:
        facts = {"got": part.stat().st_size, "all": bar.total}
        raise ConnectionError(said("the connection broke off after {got} of {all} bytes", **facts))
    if not check_integrity(part, md5):
        part.unlink()
        raise OSError(said("{name} arrived damaged", name=path.name))
    part.replace(path)


def _answer(request: urllib.request.Request) -> HTTPResponse:
    """The server's answer, if it begins in time: however many addresses it has, and whoever is asked for them."""
    answers: SimpleQueue[HTTPResponse | Exception] = SimpleQueue()

    def ask() -> None:
        try:
            answers.put(urllib.request.urlopen(request, timeout=SECONDS_OF_SILENCE))
        except Exception as error:
            answers.put(error)

    Thread(target=ask, daemon=True).start()
    try:
        answer = answers.get(timeout=SECONDS_OF_SILENCE)
    except Empty:
        raise TimeoutError("timed out") from None
    if isinstance(answer, Exception):
        raise answer
    return answer
