"""The notebook's stop button, on a real kernel: the cell under way ends in a sentence, and the cells after it run."""

import asyncio

from jupyter_client.manager import AsyncKernelManager

MODEL = """
from rvq_tutorial import ResidualVectorQuantizer
from rvq_tutorial.autoencoder import VQVAE, Decoder, Encoder
from rvq_tutorial.autoencoder.training import fit, interruptible
from rvq_tutorial.course import data, plots, widgets

crops = data.photo_crops(64, 256)
model = VQVAE(Encoder(dim=20), ResidualVectorQuantizer(20, 256, 8, channel_dim=1), Decoder(dim=20))
"""
TRAINING = """
with widgets.live_curve("psnr") as draw:
    print("begun")
    history = fit(model, crops, steps=10**6, on_step=draw)
"""
LOOP = """
for step in interruptible(range(10**9)):
    if step == 0:
        print("begun")
"""
SLIDERS = """
print("begun")
widgets.explore(lambda size: plots.bars({"bits": float(size)}, label="bits"), size=list(range(1, 1000)))
"""
AFTERWARDS = """
assert history.steps > 0 and not model.training
print(model(crops[:4]).reconstruction.isfinite().all().item())
"""


class Kernel:
    """A real kernel, with somebody at its stop button."""

    def __init__(self) -> None:
        self.manager = AsyncKernelManager()

    async def __aenter__(self) -> "Kernel":
        await self.manager.start_kernel(extra_arguments=["--log-level=ERROR"])
        self.client = self.manager.client()
        self.client.start_channels()
        await self.client.wait_for_ready(timeout=100)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.client.stop_channels()
        await self.manager.shutdown_kernel(now=True)

    async def run(self, source: str, *presses: float) -> str:
        """Run a cell, pressing stop some seconds after it says that it has begun -> what it prints; it must be ok."""
        began, printed = asyncio.Event(), []

        def listen(message: dict) -> None:
            if message["msg_type"] == "stream":
                printed.append(message["content"]["text"])
                began.set()

        async def press() -> None:
            for seconds in presses:
                await began.wait()
                await asyncio.sleep(seconds)
                await self.manager.interrupt_kernel()

        running = self.client.execute_interactive(source, output_hook=listen, timeout=200)
        reply, _ = await asyncio.gather(running, press())
        assert reply["content"]["status"] == "ok", (reply["content"], printed)
        return "".join(printed)


async def stop_everywhere() -> None:
    async with Kernel() as kernel:
        await kernel.run(MODEL)
        for presses in [(0.0, 0.05), (1.5, 0.05)]:  # twice each: while PyTorch loads, and between steps and pictures
            said = await kernel.run(TRAINING, *presses)
            assert "of 1000000 steps: the model keeps what it has learned, but it is trained too little" in said
            assert await kernel.run(AFTERWARDS) == "True\n"
        assert "of 1000000000 steps: the model keeps" in await kernel.run(LOOP, 0.1)
        assert "of 999 pictures: run this cell again to see its sliders." in await kernel.run(SLIDERS, 0.5)


def test_run_all_goes_on_wherever_stop_is_pressed() -> None:
    asyncio.run(stop_everywhere())
