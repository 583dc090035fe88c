"""Train the model that ships with the course, from the seven training photographs: `make pretrained`.

Every round draws fresh crops, changes their colours and learns from each of them once. The state is kept on disk after
every round: interrupt it at will, and started again it goes on where it stopped.
"""

import argparse
import io
import math
import sys
import time
from pathlib import Path
from typing import NamedTuple

import model_card
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm, trange

from rvq_tutorial import ResidualVectorQuantizer
from rvq_tutorial.autoencoder import VQVAE, Decoder, Encoder, IndexPrior, pretrained
from rvq_tutorial.autoencoder.files import write_whole
from rvq_tutorial.codec import Codec
from rvq_tutorial.course import data

SEED = 0
DIM, CODEBOOK_SIZE, NUM_QUANTIZERS = 19, 256, 8
WIDTH, NUM_BLOCKS = 80, 4
QUANTIZE_DROPOUT = 0.3
BEAM_SIZE = 8  # when it is used; in training the search is greedy
CROP_SIZE, BATCH_SIZE, STEPS_A_ROUND = 64, 64, 32
PRIOR_CROP_SIZE, PRIOR_ROUNDS = 128, 24
COLOURINGS = (0.0, 0.0), (0.25, 0.6), (0.4, 0.9)  # of the prior's crops: gain and gamma, see `tinted`
VARIANCE = 0.08  # of the crops, about: the loss does not depend on it much

STATE = Path("build/pretrained.pt")


class Phase(NamedTuple):
    """Rounds that begin with codebooks at the k-means of the latents and end with a learning rate of nothing."""

    rounds: int
    learning_rate: float
    swapped: float  # share of the crops whose colour channels are swapped


# Swapped colours teach the network more than seven photographs hold. In the end it gets the true ones alone, lest it
# keep codewords for greens and blues that no photograph has.
PHASES = Phase(480, 2e-3, swapped=0.5), Phase(64, 7e-4, swapped=0.0)
ROUNDS = sum(phase.rounds for phase in PHASES)
SETTINGS = repr((SEED, DIM, CODEBOOK_SIZE, NUM_QUANTIZERS, WIDTH, NUM_BLOCKS, QUANTIZE_DROPOUT, BATCH_SIZE, PHASES))


class Training:
    """The model, its optimizer, and how far they have come."""

    def __init__(self) -> None:
        torch.manual_seed(SEED)
        quantizer = ResidualVectorQuantizer(
            DIM, CODEBOOK_SIZE, NUM_QUANTIZERS, channel_dim=1, quantize_dropout=QUANTIZE_DROPOUT
        )
        size = {"dim": DIM, "width": WIDTH, "num_blocks": NUM_BLOCKS}
        self.model = VQVAE(Encoder(**size), quantizer, Decoder(**size))
        self.optimizer = torch.optim.Adam(self.model.parameters(), betas=(0.9, 0.95))
        self.rounds_done = 0
        self.seconds = 0.0

    def state_dict(self) -> dict:
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "progress": (self.rounds_done, self.seconds),
            "settings": SETTINGS,
        }

    def load_state_dict(self, state: dict) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.rounds_done, self.seconds = state["progress"]

    def told(self) -> str:
        """How it was trained, in words."""
        steps = self.rounds_done * STEPS_A_ROUND
        return (
            f"`make pretrained`: {steps:,} steps of {BATCH_SIZE} crops, each crop seen once, seed {SEED}, "
            f"{self.seconds / 60:.0f} minutes by the clock."
        )

    def next_round(self) -> float:
        """Learn from fresh crops, each seen once; → the mean squared error of the rebuilt crops."""
        started = time.perf_counter()
        phase, done = self._phase()
        seed = SEED + self.rounds_done
        torch.manual_seed(seed)
        crops = random_crops(BATCH_SIZE * STEPS_A_ROUND, phase.swapped, seed)
        if done == 0:
            with torch.no_grad():
                self.model.quantizer.fit(self.model.latents(crops[:256]))
        self.model.train()
        errors = []
        for step, batch in enumerate(crops.split(BATCH_SIZE), start=1):
            share = (done + step / STEPS_A_ROUND) / phase.rounds
            errors.append(self._step(batch, phase.learning_rate * learning_rate_factor(share)))
        self.rounds_done += 1
        self.seconds += time.perf_counter() - started
        return sum(errors) / len(errors)

    def _phase(self) -> tuple[Phase, int]:
        """The phase of the next round, and how many rounds of it are done."""
        done = self.rounds_done
        for phase in PHASES:
            if done < phase.rounds:
                break
            done -= phase.rounds
        return phase, done

    def _step(self, batch: Tensor, learning_rate: float) -> float:
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        output = self.model(batch)
        error = F.mse_loss(output.reconstruction, batch)
        self.optimizer.zero_grad()
        (error / VARIANCE + output.loss).backward()
        self.optimizer.step()
        return error.item()


def learning_rate_factor(done: float) -> float:
    """Up to 1 in a straight line, then down to 0 along half a cosine."""
    return min(1, done / 0.02) * (1 + math.cos(math.pi * done)) / 2


def random_crops(n: int, swapped: float, seed: int) -> Tensor:
    """Crops of the training photographs, turned, mirrored and in other colours: seven photographs hold few."""
    crops = data.photo_crops(CROP_SIZE, n, seed=seed)
    generator = torch.Generator().manual_seed(seed)

    def chance(share: float) -> Tensor:
        return torch.rand(n, 1, 1, 1, generator=generator) < share

    def between(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(n, 1, 1, 1, generator=generator)

    crops = torch.where(chance(0.5), crops.flip(-2), crops)
    crops = torch.where(chance(0.5), crops.mT, crops)
    order = torch.rand(n, 3, generator=generator).argsort(1)
    crops = torch.where(chance(swapped), crops[torch.arange(n)[:, None], order], crops)
    grey, mean = crops.mean(1, keepdim=True), crops.mean((2, 3), keepdim=True)
    recoloured = grey + between(0.3, 1.3) * (crops - grey)
    recoloured = mean + between(0.6, 1.4) * (recoloured - mean) + between(-0.15, 0.15)
    return torch.where(chance(0.7), recoloured.clamp(0, 1), crops)


@torch.no_grad()
def learned_prior(model: VQVAE) -> IndexPrior:
    """What the indices of the training photographs, in their own and other colours, tell about their neighbours."""
    generator = torch.Generator().manual_seed(SEED)
    grids = []
    for seed in trange(PRIOR_ROUNDS, desc="Prior", file=sys.stdout):
        gain, gamma = COLOURINGS[seed % len(COLOURINGS)]
        crops = tinted(data.photo_crops(PRIOR_CROP_SIZE, 256, seed=seed), gain, gamma, generator)
        grids += [model.encode(batch) for batch in crops.split(16)]
    return IndexPrior(CODEBOOK_SIZE, NUM_QUANTIZERS).fit(grids)


def tinted(crops: Tensor, gain: float, gamma: float, generator: torch.Generator) -> Tensor:
    """Crops with each channel up to e^gain times brighter or darker, and middle tones raised to up to e^±gamma."""

    def factor(channels: int, most: float) -> Tensor:
        return (most * (2 * torch.rand(len(crops), channels, 1, 1, generator=generator) - 1)).exp()

    return (crops * factor(3, gain)).clamp(0, 1) ** factor(1, gamma)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=pretrained.PHOTOS)
    arguments = parser.parse_args()

    training = Training()
    if STATE.exists():
        state = torch.load(STATE, weights_only=True)
        if state.get("settings") != SETTINGS:
            sys.exit(f"{STATE} comes from a training with other settings: remove it to begin anew.")
        training.load_state_dict(state)
        print(f"Going on after {training.rounds_done} of {ROUNDS} rounds.")
    STATE.parent.mkdir(exist_ok=True)
    with tqdm(total=ROUNDS, initial=training.rounds_done, unit="round", file=sys.stdout) as bar:
        while training.rounds_done < ROUNDS:
            error = training.next_round()
            state = io.BytesIO()
            torch.save(training.state_dict(), state)
            write_whole(STATE, state.getvalue())
            bar.set_postfix_str(f"PSNR of the crops {-10 * math.log10(error):.2f} dB", refresh=False)
            bar.update()

    print("Counting which indices stand side by side, then measuring for the model card …")
    training.model.eval().quantizer.beam_size = BEAM_SIZE
    arguments.out.parent.mkdir(exist_ok=True)
    prior = learned_prior(training.model)
    pretrained.save(arguments.out, training.model, prior)
    model_card.write(arguments.out.with_name("MODEL_CARD.md"), Codec(training.model, prior), training.told())


if __name__ == "__main__":
    main()
