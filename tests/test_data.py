import gzip
import hashlib
import http.server
import pickle
import re
import socket
import subprocess
import sys
import tarfile
import threading

import numpy as np
import pytest
import torch

from rvq_tutorial import data

# Photographs


def test_photos_are_colour_pictures_split_by_photo():
    train, held_out = data.photos()
    assert {"astronaut", "flower", "rocket"} <= train.keys()
    assert {"chelsea", "china"} <= held_out.keys()
    assert not train.keys() & held_out.keys()
    for photo in [*train.values(), *held_out.values()]:
        assert photo.dtype == torch.float32 and photo.ndim == 3 and photo.shape[0] == 3
        assert photo.min() >= 0 and 0.5 < photo.max() <= 1
        assert (photo[0] - photo[2]).abs().mean() > 0.01  # in colour


def test_photos_match_the_packages_that_ship_them():
    from skimage.data import astronaut
    from sklearn.datasets import load_sample_image

    photos = data.photos()
    assert torch.equal((photos.train["astronaut"] * 255).round().byte(), torch.tensor(astronaut()).permute(2, 0, 1))
    china = torch.tensor(load_sample_image("china.jpg")).permute(2, 0, 1)
    assert torch.equal((photos.held_out["china"] * 255).round().byte(), china)


def test_photos_come_from_the_wheels_without_a_network(tmp_path):
    """In a process that can't open a socket and has no cache."""
    script = """
import socket, sys
def refuse(*args, **kwargs): raise AssertionError("photos() opened a socket")
socket.socket = refuse
from rvq_tutorial import data
assert len(data.photos().train) + len(data.photos().held_out) == 10
assert data.photos() is data.photos()
heavy = {"matplotlib", "ipywidgets", "skimage", "sklearn", "torchvision"} & set(sys.modules)
assert not heavy, heavy
"""
    env = {"HOME": str(tmp_path), "PATH": "", "PYTHONPATH": ":".join(sys.path)}
    subprocess.run([sys.executable, "-c", script], check=True, env=env)
    assert not list(tmp_path.iterdir())


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(data.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match="install scikit-image"):
        data.photos.__wrapped__()


@pytest.mark.parametrize("split", ["train", "held_out"])
def test_crops_have_their_shape_and_range(split):
    crops = data.photo_crops(24, 11, split=split)
    assert crops.shape == (11, 3, 24, 24) and crops.dtype == torch.float32
    assert crops.min() >= 0 and crops.max() <= 1


def test_the_seed_fixes_the_crops_and_leaves_torchs_own_state_alone():
    state = torch.get_rng_state()
    crops = data.photo_crops(16, 20, seed=3)
    assert torch.equal(crops, data.photo_crops(16, 20, seed=3))
    assert not torch.equal(crops, data.photo_crops(16, 20, seed=4))
    assert torch.equal(state, torch.get_rng_state())


def test_held_out_crops_come_from_held_out_photos():
    """A crop at full size, not flipped, lies in its photo pixel by pixel; none lies in a training photo."""
    train, held_out = (_patches(photos) for photos in data.photos())
    crops = data.photo_crops(16, 60, split="held_out")
    corners = {crop[:, :2, :2].numpy().tobytes() for crop in crops}
    assert len(corners & held_out) >= 5
    train_crops = data.photo_crops(16, 60, split="train")
    assert len({crop[:, :2, :2].numpy().tobytes() for crop in train_crops} & train) >= 5
    assert not any(_lies_in(crop, photo) for crop in crops[:6] for photo in data.photos().train.values())


def _patches(photos):
    """The bytes of every 2 x 2 patch."""
    return {
        patch.numpy().tobytes()
        for photo in photos.values()
        for patch in photo.unfold(1, 2, 1).unfold(2, 2, 1).permute(1, 2, 0, 3, 4).reshape(-1, 3, 2, 2)
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 1), "size must be a whole number"),
        ((16, 0), "n must be a whole number"),
        ((5000, 1), "size must be at most"),
        ((16, 1, 0, "test"), "split must be 'train' or 'held_out', got 'test'"),
    ],
)
def test_bad_crop_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        data.photo_crops(*arguments)
