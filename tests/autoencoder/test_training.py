import math
import re
import signal
import subprocess
import sys

import pytest
import torch

from rvq_tutorial import ResidualVectorQuantizer, VectorQuantizer, metrics
from rvq_tutorial.autoencoder import VQVAE, Decoder, Encoder
from rvq_tutorial.autoencoder.training import fit
from rvq_tutorial.course import data


@pytest.fixture(scope="module")
def images():
    return data.photo_crops(16, 64)


@pytest.fixture
def model():
    return small_model()


def small_model(quantizer=None, channels=3):
    torch.manual_seed(0)
    quantizer = quantizer or ResidualVectorQuantizer(6, 8, 3, channel_dim=1, quantize_dropout=0.5)
    return VQVAE(
        Encoder(channels, 6, width=8, stride=4, num_blocks=1),
        quantizer,
        Decoder(channels, 6, width=8, stride=4, num_blocks=1),
    )


def state(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def held_out_psnr(model):
    crops = data.photo_crops(16, 64, split="held_out")
    with torch.no_grad():
        return metrics.psnr(model(crops).reconstruction, crops)


@pytest.mark.parametrize(
    "quantizer",
    [
        lambda: VectorQuantizer(6, 8, channel_dim=1),
        lambda: VectorQuantizer(6, 8, channel_dim=1, codebook_update="gradient"),
        lambda: ResidualVectorQuantizer(6, 8, 3, channel_dim=1, quantize_dropout=0.5),
    ],
)
def test_training_beats_the_best_codebooks_of_the_untrained_network(quantizer, images):
    model = small_model(quantizer())
    model.quantizer.fit(model.latents(images).detach())
    before = held_out_psnr(model.eval())
    history = fit(model, images, steps=100, learning_rate=5e-3)
    assert held_out_psnr(model) > before + 1
    assert history.steps == 100 and not model.training


def test_the_history_measures_every_step(model, images):
    history = fit(model, images, steps=7, batch_size=3)
    assert list(history) == ["loss", "psnr", "quantizer_loss"]
    for values in history.values():
        assert len(values) == 7 and all(math.isfinite(value) for value in values)
    reconstruction_part = [loss - part for loss, part in zip(history["loss"], history["quantizer_loss"], strict=True)]
    psnr = [-10 * math.log10(part * images.var().item()) for part in reconstruction_part]
    assert history["psnr"] == pytest.approx(psnr, rel=1e-4)
    with pytest.raises(KeyError):
        history["accuracy"]


def test_the_codebooks_start_at_k_means_of_the_latents(model, images):
    """Not at random vectors: the very first batch is quantized well."""
    spread = model.latents(images).var().item()
    history = fit(model, images, steps=1)
    assert history["quantizer_loss"][0] < 0.25 * 0.5 * spread


@pytest.mark.parametrize("kind", ["fitted", "trained", "given"])
def test_codebooks_that_were_started_are_kept(images, kind):
    """Else a second training would throw away what the first one learned."""
    model = small_model()
    if kind == "fitted":
        model.quantizer.fit(model.latents(images).detach())
    elif kind == "trained":
        fit(model, images, steps=2)
    else:
        codebooks = torch.randn(3, 8, 6)
        model.quantizer = ResidualVectorQuantizer.from_pretrained(codebooks, channel_dim=1, decay=1.0)
    before = model.quantizer.codebooks
    model.quantizer.stages[0].usage.fill_(1 / 8)  # no restarts
    model.quantizer.stages[1].usage.fill_(1 / 8)
    model.quantizer.stages[2].usage.fill_(1 / 8)
    fit(model, images, steps=1, learning_rate=1e-9)
    moved = (model.quantizer.codebooks - before).norm(dim=-1)
    assert moved.max() < 0.1 * before.norm(dim=-1).mean()


def test_a_frozen_codebook_stays(images):
    codebooks = torch.randn(3, 8, 6)
    model = small_model(ResidualVectorQuantizer.from_pretrained(codebooks, freeze=True, channel_dim=1))
    fit(model, images, steps=3)
    assert torch.equal(model.quantizer.codebooks, codebooks)


def test_the_seed_fixes_the_result_and_leaves_torchs_own_state_alone(images):
    results = []
    for seed, noise in [(1, 10), (1, 11), (2, 10)]:
        model = small_model()
        torch.manual_seed(noise)
        before = torch.get_rng_state()
        fit(model, images, steps=3, seed=seed)
        assert torch.equal(torch.get_rng_state(), before)
        results.append(state(model))
    assert same(results[0], results[1])
    assert not same(results[0], results[2])


def test_the_bar_goes_to_stdout(model, images, capsys):
    fit(model, images, steps=2)
    said = capsys.readouterr()
    assert re.search(r"Training: 100%.*2/2.*loss \d\.\d{3}, PSNR \d+\.\d dB", said.out.split("\r")[-1])
    assert said.err == ""


def test_the_history_can_be_drawn_while_it_grows(model, images):
    seen = []
    fit(model, images, steps=3, on_step=lambda history: seen.append(len(history["psnr"])))
    assert seen == [1, 2, 3]


@pytest.mark.usefixtures("python_is_interrupted")
def test_an_interrupt_keeps_what_was_learned(model, images, capsys):
    def interrupt(history):
        if history.steps == 4:
            signal.raise_signal(signal.SIGINT)  # what the notebook's stop button sends

    start = state(model)
    history = fit(model, images, steps=50, on_step=interrupt)
    said = capsys.readouterr().out
    assert said.endswith(
        "\nStopped after 4 of 50 steps: the model keeps what it has learned, "
        "but it is trained too little for what the text says of it.\n"
    )
    assert [len(values) for values in history.values()] == [4, 4, 4]
    assert not model.training and not same(start, state(model))
    assert all(value.isfinite().all() for value in model.state_dict().values())
    fit(model, images, steps=1)  # and it can go on


@pytest.mark.usefixtures("python_is_interrupted")
def test_an_interrupt_in_the_last_step_is_none(model, images, capsys):
    def interrupt(history):
        if history.steps == 3:
            signal.raise_signal(signal.SIGINT)

    history = fit(model, images, steps=3, on_step=interrupt)
    assert history.steps == 3 and "Stopped" not in capsys.readouterr().out


def test_a_callback_may_stop_it(model, images, capsys):
    def stop(history):
        raise KeyboardInterrupt

    assert fit(model, images, steps=3, on_step=stop).steps == 1 and not model.training
    assert "\nStopped after 1 of 3 steps" in capsys.readouterr().out


def test_an_interrupt_from_outside_stops_it_at_any_time():
    """Real ones: while PyTorch loads what a first step needs, in the first look at many images, and in k-means."""
    script = """
import os, signal, threading, time, torch
from rvq_tutorial import ResidualVectorQuantizer
from rvq_tutorial.autoencoder import VQVAE, Decoder, Encoder
from rvq_tutorial.autoencoder.training import fit

def press_twice(seconds):
    while signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # until the training has begun
        time.sleep(1e-4)
    time.sleep(seconds)
    for _ in range(2):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1e-3)

signal.signal(signal.SIGINT, signal.default_int_handler)
images = torch.rand(3000, 3, 64, 64)
sizes = {"dim": 6, "width": 8, "stride": 4, "num_blocks": 1}
for milliseconds in (1, 20, 100, 400):
    model = VQVAE(Encoder(**sizes), ResidualVectorQuantizer(6, 8, 3, channel_dim=1), Decoder(**sizes))
    threading.Thread(target=press_twice, args=(milliseconds / 1000,)).start()
    history = fit(model, images, steps=10**6)
    assert not model.training and all(stage.is_started for stage in model.quantizer.stages)
assert fit(model, images, steps=2).steps == 2
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("Stopped after") == 4 and run.stdout.count("Stopped after 1 of 1000000 steps") >= 2


def test_a_model_in_eval_mode_is_trained_too(model, images):
    modes = []
    fit(model.eval(), images, steps=1, on_step=lambda history: modes.append(model.training))
    assert modes == [True]


def test_the_reconstruction_counts_as_much_as_its_weight(images):
    def parts(weight):
        history = fit(small_model(), images, steps=1, reconstruction_weight=weight)
        return history["loss"][0] - history["quantizer_loss"][0], history["psnr"][0]

    (once, psnr), (thrice, same_psnr), (never, _) = parts(1.0), parts(3.0), parts(0.0)
    assert psnr == same_psnr
    assert thrice == pytest.approx(3 * once, rel=1e-4) and never == 0


def test_without_the_reconstruction_only_the_commitment_moves_the_network(images):
    model, before = small_model(), state(small_model())
    fit(model, images, steps=3, reconstruction_weight=0.0)
    assert same(state(model.decoder), {n.removeprefix("decoder."): v for n, v in before.items() if "decoder" in n})
    assert not torch.equal(model.encoder.to_latents.weight, before["encoder.to_latents.weight"])


def test_an_error_in_the_callback_is_not_hidden(model, images):
    with pytest.raises(ZeroDivisionError):
        fit(model, images, steps=2, on_step=lambda history: 1 / 0)


def test_grey_images_of_a_size_that_is_not_whole_patches(images):
    model = small_model(channels=1)
    history = fit(model, images[:, :1, :15, :14], steps=2)
    assert history.steps == 2


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"images": torch.rand(8, 1, 16, 16)}, ValueError, r"images must have shape \(B, 3, H, W\), got \("),
        ({"images": torch.rand(3, 16, 16)}, ValueError, r"images must have shape \(B, 3, H, W\), got \("),
        ({"images": torch.zeros(8, 3, 16, 16, dtype=torch.uint8)}, TypeError, "images must be a floating-point tensor"),
        ({"images": torch.full((8, 3, 16, 16), torch.nan)}, ValueError, "images must be finite"),
        ({"images": torch.ones(8, 3, 16, 16)}, ValueError, "images must differ"),
        ({"steps": 0}, ValueError, "steps must be a whole number"),
        ({"batch_size": 0}, ValueError, "batch_size must be a whole number"),
        ({"learning_rate": 0.0}, ValueError, "learning_rate must be above zero, got 0.0"),
        ({"reconstruction_weight": -1.0}, ValueError, "reconstruction_weight must be .*got -1"),
        ({"learning_rate": math.nan}, ValueError, "learning_rate must be above zero, got nan"),
    ],
)
def test_bad_input_is_named_and_changes_nothing(model, images, changes, error, message):
    before, random_state = state(model), torch.get_rng_state()
    arguments = {"images": images, "steps": 2, **changes}
    with pytest.raises(error, match=message):
        fit(model, arguments.pop("images"), **arguments)
    assert same(before, state(model)) and model.training
    assert torch.equal(random_state, torch.get_rng_state())
