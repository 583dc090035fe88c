"""One training loop for every autoencoder of the course."""

import math
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from rvq_tutorial import metrics
from rvq_tutorial.arguments import check_range, check_vectors, check_whole
from rvq_tutorial.autoencoder.interrupts import held
from rvq_tutorial.autoencoder.models import VQVAE
from rvq_tutorial.language import said

with held():  # the first optimizer would load it; a load cut in two by an interrupt could not be done again
    import torch._dynamo

Item = TypeVar("Item")

START_IMAGES = 128  # encoded before the first step, to start the codebooks from
WARM_UP = 0.1  # share of the steps in which the learning rate rises


class Measurement(NamedTuple):
    """What one training step saw of its batch."""

    loss: float  # what the optimizer made smaller
    psnr: float  # dB
    quantizer_loss: float


class History(Mapping[str, list[float]]):
    """The measurements of a training run so far, by name: `history["psnr"]` has one entry for each step."""

    def __init__(self) -> None:
        self.measurements: list[Measurement] = []

    def __getitem__(self, name: str) -> list[float]:
        if name not in Measurement._fields:
            raise KeyError(name)
        return [getattr(measurement, name) for measurement in self.measurements]

    def __iter__(self) -> Iterator[str]:
        return iter(Measurement._fields)

    def __len__(self) -> int:
        return len(Measurement._fields)

    @property
    def steps(self) -> int:
        """How many steps were measured."""
        return len(self.measurements)

    def __repr__(self) -> str:
        last = f", last: {self.measurements[-1]}" if self.measurements else ""
        return f"History({self.steps} steps{last})"


def fit(
    model: VQVAE,
    images: Tensor,
    *,
    steps: int,
    batch_size: int = 16,
    learning_rate: float = 2e-3,
    reconstruction_weight: float = 1.0,
    seed: int = 0,
    device: torch.device | str | None = None,
    on_step: Callable[[History], None] | None = None,
) -> History:
    """Train the model on random batches of the images; it comes back in eval mode, on the device where it was.

    The codebooks start from k-means on what the encoder gives, unless they were fitted, given or trained before. The
    loss is the reconstruction's mean squared error over the images' variance, so that it does not depend on their
    contrast (as in the code of van den Oord et al. 2017), plus the quantizer's own loss. Adam's learning rate rises for
    a tenth of the steps, then falls to nothing along a cosine (Loshchilov & Hutter 2017).

    Interrupt it whenever you like: it stops after the step under way, the model keeps what it has learned, the history
    what was measured. An `on_step` that raises KeyboardInterrupt stops it, too.

    Args:
        images: (N, C, H, W), values in [0, 1].
        steps: number of batches.
        reconstruction_weight: of the reconstruction's error in the loss, where the quantizer's codebook loss has 1 and
            its commitment loss `commitment_weight`. Only their ratios matter: Adam makes up for a common factor.
        seed: fixes the batches and the quantizer's random choices; torch's own random state is left as it was.
        device: where to train; by default a CUDA GPU where there is one.
        on_step: called with the history after every step, for instance to draw it.

    Raises:
        TypeError, ValueError: an argument is out of range, or the images don't suit the model; nothing has changed.
    """
    history = History()
    with held() as interrupted:
        check_vectors(images, "images")
        check_whole(steps, "steps")
        check_whole(batch_size, "batch_size")
        if not 0 < learning_rate < math.inf:
            raise ValueError(said("learning_rate must be above zero, got {learning_rate}", learning_rate=learning_rate))
        check_range(reconstruction_weight, "reconstruction_weight", 0, math.inf)
        if images.var() == 0:
            raise ValueError(said("images must differ in some value, got the same one everywhere"))

        home = next(model.parameters()).device
        device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(seed)
            try:
                model.to(device)
                if not model.quantizer.is_started:
                    _start_codebooks(model, images)
                model.train()
                measurements = _train(model, images, steps, batch_size, learning_rate, reconstruction_weight)
                # The delay lets `on_step` show its first picture before the bar does: the bar stays in one piece.
                with tqdm(
                    measurements, desc=said("Training"), unit=said("step"), total=steps, delay=1e-9, file=sys.stdout
                ) as bar:
                    for measurement in bar:
                        history.measurements.append(measurement)
                        seen = said("loss {loss:.3f}, PSNR {psnr:.1f} dB", loss=measurement.loss, psnr=measurement.psnr)
                        bar.set_postfix_str(seen, refresh=False)
                        if on_step:
                            on_step(history)
                        if interrupted() and history.steps < steps:
                            raise KeyboardInterrupt
            except KeyboardInterrupt:  # the one above, or one that `on_step` raised
                print(_stopped(history.steps, steps))
            finally:
                model.to(home)
        model.eval()
    return history


def interruptible(steps: Collection[Item]) -> Iterator[Item]:
    """The steps of a training loop: an interrupt ends the loop after the step under way, and a sentence says so."""
    with held() as interrupted:
        for done, step in enumerate(steps):
            if interrupted():
                print(_stopped(done, len(steps)))
                return
            yield step


def _stopped(done: int, steps: int) -> str:
    """What is said of a model whose training was stopped."""
    return said(
        "Stopped after {done} of {steps} steps: the model keeps what it has learned, "
        "but it is trained too little for what the text says of it.",
        done=done,
        steps=steps,
    )


@torch.no_grad()
def _start_codebooks(model: VQVAE, images: Tensor) -> None:
    model.quantizer.fit(model.latents(_random_batch(model, images, START_IMAGES)))


def _train(
    model: VQVAE, images: Tensor, steps: int, batch_size: int, learning_rate: float, reconstruction_weight: float
) -> Iterator[Measurement]:
    scale = reconstruction_weight / images.var().item()
    optimizer = torch.optim.Adam(model.parameters(), learning_rate, betas=(0.9, 0.95))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _learning_rate_factor(step, steps))
    for _ in range(steps):
        batch = _random_batch(model, images, batch_size)
        output = model(batch)
        loss = scale * F.mse_loss(output.reconstruction, batch) + output.loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        psnr = metrics.psnr(output.reconstruction, batch)
        yield Measurement(loss.item(), psnr, output.loss.item())


def _random_batch(model: VQVAE, images: Tensor, size: int) -> Tensor:
    batch = images[torch.randint(len(images), (size,))]
    return batch.to(next(model.parameters()).device)


def _learning_rate_factor(step: int, steps: int) -> float:
    """Up to 1 in a straight line, then down to 0 along half a cosine."""
    done = (step + 1) / (steps + 1)
    return min(1, done / WARM_UP) * (1 + math.cos(math.pi * done)) / 2
