import gzip
import hashlib
import http.server
import os
import pickle
import re
import socket
import subprocess
import sys
import tarfile
import threading
import time
from contextlib import ExitStack

import numpy as np
import pytest
import torch
from PIL import Image

from rvq_tutorial.course import data

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
    """In a process that can't connect to anything and has no cache."""
    script = """
import socket, sys
def refuse(*args, **kwargs): raise AssertionError("photos() used the network")
socket.socket.connect = refuse
from rvq_tutorial.course import data
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


@pytest.fixture
def shades(tmp_path):
    """Albums of three grey pictures for each split, by its name."""
    for split, start in SHADES:
        (tmp_path / split).mkdir()
        for i in range(3):
            Image.new("RGB", (30, 40), 3 * (round(255 * (0.1 * i + start)),)).save(tmp_path / split / f"{i}.png")
    return {split: data.Album(sorted((tmp_path / split).iterdir())) for split, _ in SHADES}


def test_a_photo_is_read_when_it_is_asked_for_and_then_shared(shades, tmp_path):
    album = shades["train"]
    (tmp_path / "train" / "2.png").unlink()
    assert list(album) == ["0", "1", "2"] and len(album) == 3
    assert album["0"] is album["0"] and album["0"].shape == (3, 40, 30)
    with pytest.raises(FileNotFoundError, match=r"2\.png"):
        album["2"]


def test_cutting_crops_keeps_no_photo(monkeypatch, shades, tmp_path):
    monkeypatch.setattr(data, "photos", lambda: data.Photos(**shades))
    data.photo_crops(16, 3)
    (tmp_path / "train" / "0.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"0\.png"):
        shades["train"]["0"]


def test_crops_come_from_all_photos_of_their_split_alike(monkeypatch, shades):
    monkeypatch.setattr(data, "photos", lambda: data.Photos(**shades))
    for split, start in SHADES:
        crops = data.photo_crops(16, 30, split=split)
        assert [round(10 * (crop.mean().item() - start)) for crop in crops].count(1) == 10
        assert start - 0.01 < crops.min() and crops.max() < start + 0.21


def test_patches_come_row_by_row_and_image_after_image():
    images = torch.arange(2 * 3 * 4 * 6).view(2, 3, 4, 6)
    patches = data.patches(images, 2)
    assert patches.shape == (2 * 2 * 3, 3, 2, 2)
    assert torch.equal(patches[1], images[0, :, :2, 2:4])
    assert torch.equal(patches[3], images[0, :, 2:, :2])
    assert torch.equal(patches[6], images[1, :, :2, :2])


def test_what_has_no_whole_patches_is_named():
    with pytest.raises(ValueError, match=r"H and W multiples of 4, got \(1, 3, 8, 10\)"):
        data.patches(torch.zeros(1, 3, 8, 10), 4)


SHADES = [("train", 0.1), ("held_out", 0.6)]


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


def test_crops_differ_in_scale_and_are_flipped():
    """Of a picture that grows brighter to the right, crops at half the scale grow twice as fast, flipped ones fall."""
    ramp = torch.linspace(0, 1, 100).expand(3, 100, 100)
    generator = torch.Generator().manual_seed(0)
    pyramid = data._pyramid(ramp, 16)
    slopes = {
        round(float(c[0, 8, 9] - c[0, 8, 8]) * 99, 1)
        for c in (data._random_crop(pyramid, 16, generator) for _ in range(60))
    }
    assert slopes == {1.0, 1.4, 2.0, -1.0, -1.4, -2.0}


# Toy sets


@pytest.mark.parametrize("name", ["gaussian", "blobs", "moons", "ring", "spiral"])
def test_toy_sets(name):
    points = data.toy(name, 1000, seed=1)
    assert points.shape == (1000, 2) and points.dtype == torch.float32
    assert torch.equal(points, data.toy(name, 1000, seed=1))
    assert not torch.equal(points, data.toy(name, 1000, seed=2))
    assert points.mean(0).norm() < 0.35 and 0.3 < points.std() < 1.2


def test_an_unknown_toy_set_is_named():
    with pytest.raises(ValueError, match=r"name must be one of 'gaussian', .*, got 'square'"):
        data.toy("square", 10)
    with pytest.raises(ValueError, match="n must be a whole number"):
        data.toy("ring", 0)


# torchvision's sets: small files in the true format, from a server on this machine


@pytest.fixture
def server(tmp_path):
    """Serves `server.files`, goes on where a client asks, and hangs up after `server.hang_up_after` bytes."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            content = server.files[self.path.lstrip("/")]
            start = int(re.fullmatch(r"bytes=(\d+)-", self.headers["Range"])[1]) if server.resumes else 0
            server.requests.append((self.path.lstrip("/"), start))
            self.send_response(206 if server.resumes else 200)
            self.send_header("Content-Length", len(content) - start)
            self.end_headers()
            self.wfile.write(content[start:][: server.hang_up_after])

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.files, server.requests, server.resumes, server.hang_up_after = {}, [], True, None
    server.url = f"http://127.0.0.1:{server.server_port}/"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def _md5(content):
    return hashlib.md5(content).hexdigest()


@pytest.fixture
def fashion(server, monkeypatch):
    """FashionMNIST of five training and three test images, in IDX format (http://yann.lecun.com/exdb/mnist)."""
    from torchvision import datasets

    images = {}
    resources = []
    for half, count in [("train", 5), ("t10k", 3)]:
        images[half] = np.random.default_rng(count).integers(0, 16, (count, 28, 28), np.uint8)  # packs well
        sizes = np.array([count, 28, 28], ">i4").tobytes()
        contents = {
            f"{half}-images-idx3-ubyte.gz": bytes([0, 0, 8, 3]) + sizes + images[half].tobytes(),
            f"{half}-labels-idx1-ubyte.gz": bytes([0, 0, 8, 1]) + sizes[:4] + bytes(count),
        }
        for name, content in contents.items():
            server.files[name] = gzip.compress(content, mtime=0)
            resources.append((name, _md5(server.files[name])))
    monkeypatch.setattr(datasets.FashionMNIST, "mirrors", [server.url])
    monkeypatch.setattr(datasets.FashionMNIST, "resources", resources)
    return {half: torch.tensor(pixels)[:, None].float() / 255 for half, pixels in images.items()}


@pytest.fixture
def cifar(server, monkeypatch, tmp_path):
    """CIFAR10 of ten training and two test images (https://www.cs.toronto.edu/~kriz/cifar.html)."""
    from torchvision.datasets import CIFAR10

    files, images = {}, {}
    for number, name in enumerate([name for name, _ in CIFAR10.train_list + CIFAR10.test_list]):
        images[name] = np.random.default_rng(number).integers(0, 256, (2, 3072), np.uint8)
        files[name] = pickle.dumps({"data": images[name], "labels": [0, 1]})
    files["batches.meta"] = pickle.dumps({"label_names": ["a", "b"]})
    folder = tmp_path / CIFAR10.base_folder
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    archive = tmp_path / CIFAR10.filename
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, arcname=CIFAR10.base_folder)

    server.files[CIFAR10.filename] = archive.read_bytes()
    monkeypatch.setattr(CIFAR10, "url", server.url + CIFAR10.filename)
    monkeypatch.setattr(CIFAR10, "tgz_md5", _md5(server.files[CIFAR10.filename]))
    for part in ("train_list", "test_list"):
        monkeypatch.setattr(CIFAR10, part, [[name, _md5(files[name])] for name, _ in getattr(CIFAR10, part)])
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": _md5(files["batches.meta"])})
    pixels = torch.tensor(np.concatenate(list(images.values()))).view(-1, 3, 32, 32).float() / 255
    return {"train": pixels[:10], "held_out": pixels[10:]}


def test_fashion_mnist_is_downloaded_once(fashion, server, tmp_path, capsys):
    images = data.torchvision_images("FashionMNIST", 4, root=tmp_path)
    assert torch.equal(images, fashion["train"][:4])
    assert len(server.requests) == 4
    assert torch.equal(data.torchvision_images("FashionMNIST", 3, "held_out", root=tmp_path), fashion["t10k"])
    assert len(server.requests) == 4
    assert not capsys.readouterr().err


def test_cifar10(cifar, tmp_path):
    assert torch.equal(data.torchvision_images("CIFAR10", 10, root=tmp_path / "cache"), cifar["train"])
    assert torch.equal(data.torchvision_images("CIFAR10", 2, "held_out", root=tmp_path / "cache"), cifar["held_out"])


@pytest.mark.parametrize("resumes", [True, False])
def test_an_interrupted_download_goes_on_or_starts_again(fashion, server, tmp_path, capsys, resumes):
    server.hang_up_after = 1000
    server.resumes = resumes
    crops = data.torchvision_images("FashionMNIST", 2, root=tmp_path)
    assert "could not be downloaded (the connection broke off after 1000 of" in capsys.readouterr().out
    assert crops.shape == (2, 1, 28, 28)

    server.hang_up_after = None
    assert torch.equal(data.torchvision_images("FashionMNIST", 5, root=tmp_path), fashion["train"])
    starts = [start for name, start in server.requests if name == "train-images-idx3-ubyte.gz"]
    assert starts == ([0, 1000] if resumes else [0, 0])
    assert not list(tmp_path.rglob("*.part"))


def test_a_damaged_download_is_thrown_away(fashion, server, tmp_path, capsys):
    name = "train-images-idx3-ubyte.gz"
    whole = server.files[name]
    server.files[name] = whole[:-1] + b"?"
    data.torchvision_images("FashionMNIST", 2, root=tmp_path)
    assert "(train-images-idx3-ubyte.gz arrived damaged)" in capsys.readouterr().out
    server.files[name] = whole
    assert torch.equal(data.torchvision_images("FashionMNIST", 5, root=tmp_path), fashion["train"])


def test_an_unpacking_that_was_cut_short_is_done_again(fashion, server, tmp_path):
    data.torchvision_images("FashionMNIST", 5, root=tmp_path)
    for unpacked in (tmp_path / "FashionMNIST" / "raw").glob("*-ubyte"):
        unpacked.write_bytes(unpacked.read_bytes()[:-3])
    assert torch.equal(data.torchvision_images("FashionMNIST", 5, root=tmp_path), fashion["train"])
    assert len(server.requests) == 4


@pytest.mark.parametrize(("name", "shape"), [("FashionMNIST", (6, 1, 28, 28)), ("CIFAR10", (6, 3, 32, 32))])
def test_without_a_network_photos_stand_in(monkeypatch, tmp_path, capsys, name, shape):
    from torchvision import datasets

    with socket.socket() as closed:  # a port that nobody listens at
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/"
        monkeypatch.setattr(datasets.FashionMNIST, "mirrors", [url])
        monkeypatch.setattr(datasets.CIFAR10, "url", url + "cifar.tar.gz")
        images = data.torchvision_images(name, 6, root=tmp_path)
    assert images.shape == shape and images.min() >= 0 and images.max() <= 1
    said = capsys.readouterr()
    assert re.fullmatch(rf"{name} could not be downloaded \(.+\); using crops of the photographs instead.\n", said.out)
    assert not said.err


@pytest.fixture
def silent(monkeypatch):
    """A server that takes the question and never answers."""
    from torchvision import datasets

    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/"
        monkeypatch.setattr(datasets.FashionMNIST, "mirrors", [url])
        yield url


@pytest.fixture
def four_deaf_addresses(monkeypatch):
    """A server of four addresses, at none of which anybody answers so much as the call, as behind some firewalls."""
    with ExitStack() as open_ones:
        listening = open_ones.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        port = listening.getsockname()[1]
        addresses = [("127.0.0.1", port)]
        for address in ("127.0.0.2", "127.0.0.3", "127.0.0.4"):
            open_ones.enter_context(socket.create_server((address, port), backlog=0))
            addresses.append((address, port))
        for address in addresses:
            for _ in range(4):  # from the second on they wait in a queue that is full
                caller = open_ones.enter_context(socket.socket())
                caller.setblocking(False)
                caller.connect_ex(address)
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in addresses]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
        yield f"http://course.invalid:{port}/"


@pytest.mark.parametrize("server", ["silent", "four_deaf_addresses"])
def test_a_silent_server_is_not_waited_for_long(server, request, monkeypatch, tmp_path, capsys):
    from torchvision import datasets

    monkeypatch.setattr(datasets.FashionMNIST, "mirrors", [request.getfixturevalue(server)])
    start = time.monotonic()
    assert data.torchvision_images("FashionMNIST", 2, root=tmp_path).shape == (2, 1, 28, 28)
    assert time.monotonic() - start < 10  # 5 seconds of them in silence
    assert capsys.readouterr().out == (
        "FashionMNIST could not be downloaded (timed out); using crops of the photographs instead.\n"
    )


def test_a_download_can_be_interrupted(silent, tmp_path):
    """By a real interrupt, which ends it at once; no crops stand in for what was not wanted any more."""
    script = f"""
import os, signal, threading
from torchvision import datasets
from rvq_tutorial.course import data

signal.signal(signal.SIGINT, signal.default_int_handler)
datasets.FashionMNIST.mirrors = [{silent!r}]
threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
data.torchvision_images("FashionMNIST", 2, root={str(tmp_path)!r})
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert run.returncode != 0 and run.stderr.endswith("KeyboardInterrupt\n") and run.stdout == ""


FULL_DISK = """
import resource, signal, sys
from torchvision import datasets
from rvq_tutorial.course import data

url, root, resources = sys.argv[1:]
datasets.FashionMNIST.mirrors, datasets.FashionMNIST.resources = [url], eval(resources)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
for name, room in [("to load", 1500), ("to unpack", 3000)]:  # for any one file
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
    assert data.torchvision_images("FashionMNIST", 2, root=f"{root}/{name}").shape == (2, 1, 28, 28)
"""


def test_where_there_is_no_room_nothing_half_written_is_left(fashion, server, tmp_path):
    """No file may grow beyond a limit: to the one who writes it, as if the disk were full."""
    from torchvision.datasets import FashionMNIST

    arguments = [server.url, str(tmp_path), repr(FashionMNIST.resources)]
    run = subprocess.run([sys.executable, "-c", FULL_DISK, *arguments], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    said = "FashionMNIST could not be downloaded (File too large); using crops of the photographs instead.\n"
    assert run.stdout.count(said) == 2
    left = {
        name: [path for path in (tmp_path / name).rglob("*") if path.is_file()] for name in ("to load", "to unpack")
    }
    assert left["to load"] == []
    assert {_md5(path.read_bytes()) for path in left["to unpack"]} == {md5 for _, md5 in FashionMNIST.resources}


@pytest.mark.parametrize("root", [None, "~nobody-of-that-name/data"])
def test_without_a_home_photos_stand_in(monkeypatch, capsys, root):
    """Neither HOME nor an entry in the list of users, as in some containers."""
    pwd = pytest.importorskip("pwd")
    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 123_456)
    with pytest.raises(KeyError):
        pwd.getpwuid(os.getuid())
    assert data.torchvision_images("CIFAR10", 2, root=root).shape == (2, 3, 32, 32)
    assert capsys.readouterr().out == (
        "CIFAR10 could not be downloaded (there is no home folder to keep it in; name another as root); "
        "using crops of the photographs instead.\n"
    )


def test_bad_torchvision_arguments_are_named(fashion, tmp_path):
    with pytest.raises(ValueError, match="name must be 'FashionMNIST' or 'CIFAR10', got 'MNIST'"):
        data.torchvision_images("MNIST")
    with pytest.raises(ValueError, match="split must be"):
        data.torchvision_images("CIFAR10", split="test")
    with pytest.raises(ValueError, match="n must be at most 5, the number of images in FashionMNIST"):
        data.torchvision_images("FashionMNIST", 6, root=tmp_path)


def test_read_photo_reads_a_picture_upright(tmp_path):
    pixels = torch.randint(256, (2, 3, 3), dtype=torch.uint8)  # 2 pixels high, 3 wide
    image = Image.fromarray(pixels.numpy())
    exif = image.getexif()
    exif[0x0112] = 6  # the camera was turned: the top is at the right
    image.save(tmp_path / "turned.png", exif=exif)
    photo = data.read_photo(tmp_path / "turned.png")
    assert photo.shape == (3, 3, 2)
    assert torch.equal((photo * 255).round().byte(), pixels.permute(2, 0, 1).rot90(-1, (1, 2)))


def test_read_photo_says_what_it_was_given(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"path must name a picture file; there is no file .*nothing.jpg"):
        data.read_photo(tmp_path / "nothing.jpg")
    (tmp_path / "words.jpg").write_text("no picture")
    with pytest.raises(ValueError, match=r"words.jpg is no picture that Pillow can read: save it as JPEG or PNG"):
        data.read_photo(tmp_path / "words.jpg")
