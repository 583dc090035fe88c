"""Vector quantization and residual vector quantization, small enough to read in an evening."""

from rvq_tutorial.base import QuantizerOutput
from rvq_tutorial.clustering import KMeansResult, kmeans
from rvq_tutorial.gradients import rotate, straight_through
from rvq_tutorial.quantizers import ResidualVectorQuantizer, VectorQuantizer
from rvq_tutorial.scalars import FiniteScalarQuantizer, ResidualFiniteScalarQuantizer, entropy_loss
from rvq_tutorial.search import nearest
from rvq_tutorial.tables import StoredVectors, distance_tables
from rvq_tutorial.wrappers import Grouped, Projected

__version__ = "0.1.0"

__all__ = [
    "FiniteScalarQuantizer",
    "Grouped",
    "KMeansResult",
    "Projected",
    "QuantizerOutput",
    "ResidualFiniteScalarQuantizer",
    "ResidualVectorQuantizer",
    "StoredVectors",
    "VectorQuantizer",
    "distance_tables",
    "entropy_loss",
    "kmeans",
    "nearest",
    "rotate",
    "straight_through",
]
