"""A convolutional autoencoder around a quantizer: models, training, the weights that ship, a prior of its indices."""

from rvq_tutorial.extras import need

need(__name__, "codec", "safetensors", "tqdm")

from rvq_tutorial.autoencoder.models import VQVAE, Decoder, Encoder, VQVAEOutput
from rvq_tutorial.autoencoder.prior import IndexPrior

__all__ = ["VQVAE", "Decoder", "Encoder", "IndexPrior", "VQVAEOutput"]
