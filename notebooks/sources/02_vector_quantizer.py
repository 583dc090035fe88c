# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 02 · How does a lookup learn?
#
# **The question.** In notebook 01 the data stood still, and k-means fitted a codebook to it. Inside a network everything learns by gradients, and a lookup has none. How can it sit in the middle of a network that is trained?
#
# **In the course.** Here the codebook of notebook 01 becomes a layer that learns together with the network around it. Notebook 03 keeps the layer's codewords in use, 04 chains several such layers, 06 puts one between an encoder and a decoder.
#
# **You will be able to**
# - find the nearest codewords of many vectors with one matrix product;
# - say exactly which function's gradient the straight-through trick computes, and measure it;
# - write the codebook loss and the commitment loss, and say which tensor each of them moves;
# - write a vector quantizer as an `nn.Module`, and recognise four bugs that real code has shipped with.
#
# **You need** notebook 01 (codebook, index, `nearest`, k-means), and from PyTorch: autograd, `detach`, an optimizer, `nn.Module`.
#
# **Time.** It runs in {{run_time}}. Reading takes {{reading_time}}, the five exercises half an hour more.

# %% tags=["measured"]
import torch
import torch.nn.functional as F
from torch import nn

from rvq_tutorial import VectorQuantizer, kmeans, nearest, straight_through
from rvq_tutorial.autoencoder.training import interruptible
from rvq_tutorial.course import check, data, measured, plots, widgets

_ = torch.manual_seed(0)  # the same numbers in every run

# %% [markdown]
# ## A lookup in the middle
#
# The network we are heading for has three parts. An **encoder** turns an input into a vector x. The **quantizer** puts the nearest codeword x̂ in its place. A **decoder** rebuilds the input from x̂. Only the codeword's index has to be stored. (This is the VQ-VAE of van den Oord et al. 2017.)
#
# First the middle part alone: 500 vectors in the plane, along a spiral, and 16 codewords drawn at random. As in notebook 01, a codeword's cell is where it is the nearest; a grey codeword has no vector in its cell.

# %%
points = data.toy("spiral", 500, seed=0)
codebook = torch.randn(16, 2)
plots.voronoi(points, codebook)

# %% [markdown]
# ### Nearest, without a big table
#
# Written as it is said, the nearest codeword is found from all differences x − c: a table with one entry for every vector, every codeword and every component.

# %%
differences = points[:, None] - codebook
print(f"{tuple(differences.shape)}: {differences.numel():,} numbers for {len(points)} vectors")

# %% tags=["claim"]
assert torch.equal(differences.square().sum(-1).argmin(1), nearest(points, codebook))
assert 16_384 * 1024 * 64 > 1e9 and 4e9 < 4 * 16_384 * 1024 * 64 < 4.4e9

# %% [markdown]
# A real layer sees perhaps 16,384 vectors of 64 components and has 1,024 codewords. Then this table has more than a billion entries and takes 4 GB. The way out is to expand the square. ‖v‖ is the length of a vector v, its **norm**, and ‖v‖² is the sum of its squared components:
#
# $$\|x - c_k\|^2 = \|x\|^2 - 2\,x \cdot c_k + \|c_k\|^2$$
#
# The first term is the same for every codeword, so it cannot change which of them is nearest. Dropping it and halving the rest leaves the **score** $\tfrac12\|c_k\|^2 - x \cdot c_k$. All products x · c together are one matrix product, and the table has no third axis.

# %% [markdown]
# ### Exercise 1 · Implement · ★☆☆ · 5 minutes
#
# Find the index of the nearest codeword for every row of `x`, from the scores. No loop, and no table with three axes.


# %% tags=["exercise"]
def nearest_code(x, codebook):
    """Index of the nearest codeword of each row of x: (N, dim), (K, dim) -> (N,)."""
    ### BEGIN SOLUTION
    scores = codebook.square().sum(1) / 2 - x @ codebook.T
    return scores.argmin(1)
    ### END SOLUTION


# %% [markdown] tags=["hint"]
# `x @ codebook.T` has shape (N, K): row n holds the products of vector n with every codeword. `codebook.square().sum(1)` has shape (K,), and broadcasting adds it to every row. Small scores are near: which axis does `argmin` run along?

# %%
check.nearest_code(nearest_code)

# %% [markdown]
# The package's `nearest` does the same, a few rows at a time, so that not even the (N, K) table exists as a whole. From here on we use it.
#
# ### What is wrong here? · Far from home
#
# `torch.cdist` gives a table of distances, of large sets by the same product. Below, vectors and codewords are all moved along every axis, by 1 to 1,000. That changes no difference between any two of them. Before you look: how many of the indices change?

# %% tags=["predict"]
vectors, codewords = torch.randn(2000, 8), torch.randn(256, 8)
distances, wrong = [1, 4, 16, 64, 256, 1000], {"torch.cdist": [], "nearest": []}
for distance in distances:
    moved = vectors + distance, codewords + distance
    exact = nearest(moved[0].double(), moved[1].double())
    wrong["torch.cdist"].append((torch.cdist(*moved).argmin(1) != exact).double().mean().item())
    wrong["nearest"].append((nearest(*moved) != exact).double().mean().item())
plots.lines(distances, wrong, xlabel="distance moved along each axis", ylabel="share of wrong indices", log_x=True)

# %% tags=["claim"]
assert wrong["torch.cdist"][0] < 0.01 and wrong["torch.cdist"][-1] > 0.2
assert max(wrong["nearest"]) < 0.001

# %% [markdown]
# The formula is right, the arithmetic isn't. Far out, the scores are around 8 · 1000² / 2 = 4,000,000 and differ by about 1. A float32 has some seven digits, so what decides is rounded away.
#
# **The mend.** Subtract the codebook's mean from vectors and codewords before the product. Differences stay the same, and the numbers are small again. `nearest` does that: its curve stays at zero.
#
# ## A staircase has no slope
#
# Now backwards. In one dimension a lookup can be drawn. The codewords are −1, 0 and 1, and x runs along the axis.
#
# Behind the lookup stands a loss: how far is x̂ from the target 0.9, squared? At x = 0.3 the nearest codeword is 0, and going on to the right would help: beyond 0.5 the codeword 1 takes over, and it is much closer to the target.

# %%
levels = torch.tensor([[-1.0], [0.0], [1.0]])


def lookup(x, codebook):
    """The nearest codeword of each vector: (N, dim), (K, dim) -> (N, dim)."""
    return codebook[nearest(x, codebook)]


number = torch.tensor([[0.3]], requires_grad=True)
for step in (0.001, 0.01, 0.1):
    slope = (lookup(number + step, levels) - lookup(number - step, levels)) / (2 * step)
    print(f"slope of the lookup at 0.3, measured over ±{step}: {slope.item():.3f}")

# %% tags=["claim"]
assert all(lookup(number + step, levels) == 0 for step in (-0.1, -0.01, -0.001, 0, 0.001, 0.01, 0.1))

# %% [markdown]
# A **finite difference** is the plainest way to measure a slope: step a little to both sides, and divide the change by the distance. Here nothing changes. The slope is 0 everywhere except at the borders between cells, where the lookup jumps and has no slope.

# %%
plots.staircase(levels, target=0.9)

# %% [markdown]
# Autograd doesn't even get as far as that. An index is an integer, and no gradient passes an integer: `lookup(number, levels).requires_grad` is `False`, though `number` asks for a gradient. So the encoder, before the lookup, would never learn.

# %%
plots.lookup_graph(straight_through=False)

# %% tags=["claim"]
assert not lookup(number, levels).requires_grad

# %% [markdown]
# ## Straight-through: a useful untruth
#
# The way out was written down by Bengio et al. (2013). Going forward, use the codeword. Going backward, **pretend that x̂ is x plus a constant**:
#
# $$\hat x = x + \mathrm{sg}[\hat x - x]$$
#
# sg is *stop-gradient*: the value stays, and its gradient is taken to be zero. In PyTorch it is `detach`.


# %%
def through(x, quantized):
    """The value of `quantized`, with the gradient of x."""
    return x + (quantized - x).detach()


number_loss = (through(number, lookup(number, levels)) - 0.9).square().sum()

# %% [markdown]
# ### Exercise 2 · Predict · ★★☆ · 4 minutes
#
# The loss is L(x) = (x̂ − 0.9)², and x = 0.3. Work out on paper, before anything is run: the true slope of L at x, and the slope that straight-through reports.


# %% tags=["exercise"]
def predicted_slopes():
    """The true slope of the loss at x = 0.3, and the slope with straight-through: two numbers."""
    ### BEGIN SOLUTION
    return 0.0, 2 * (0.0 - 0.9)
    ### END SOLUTION


# %% [markdown] tags=["hint"]
# The slope of (y − 0.9)² by y is 2 (y − 0.9). The first question: how fast does y = x̂ change with x? The second: if y = x + constant, how fast does it change, and what is the *value* of y at which the slope is taken?

# %%
check.predicted_slopes(predicted_slopes)

# %% [markdown]
# Now autograd's answer. `torch.autograd.grad` returns, in a tuple, the gradient that `loss.backward()` would add to `.grad`. With `retain_graph=True` autograd can be asked again; with `allow_unused=True` it answers `None`, and not with an error, where no way leads from the loss to the tensor.


# %%
def gradient(loss, tensor):
    """The gradient of a loss by a tensor; None where autograd knows no way from the loss to the tensor."""
    return torch.autograd.grad(loss, tensor, retain_graph=True, allow_unused=True)[0]


print(f"straight-through: {gradient(number_loss, number).item():.3f}")

# %% tags=["claim"]
assert abs(gradient(number_loss, number).item() + 1.8) < 1e-6

# %% [markdown]
# The slope is taken at the codeword, x̂ = 0, and not at x = 0.3.
#
# In the picture below, what autograd believes is dashed: a line for the lookup, a parabola for the loss, right only where x is now. Move x, and they are laid anew through the new place. Right of 0.5 the slope changes its sign: the codeword 1 is past the target, so x is pulled back.

# %%
widgets.explore(lambda x: plots.staircase(levels, target=0.9, x=x), x=[-1.2, -0.7, -0.3, 0.0, 0.3, 0.45, 0.7, 1.2])

# %% [markdown]
# `straight_through` in the package computes the same in another order, sg[x̂] + (x − sg[x]). In floating point x + (x̂ − x) can miss x̂ by a rounding, but x − x is always exactly 0. The sg around x̂ keeps the gradient away from the codeword; why, we see below.

# %%
plots.lookup_graph(straight_through=True)

# %% tags=["claim"]
_x, _chosen = points.clone().requires_grad_(), lookup(points, codebook).requires_grad_()
assert torch.equal(straight_through(_x, _chosen), _chosen)
assert torch.allclose(through(_x, _chosen), _chosen, atol=1e-6)
assert gradient(straight_through(_x, _chosen).sum(), _chosen) is None
assert gradient((_chosen + (_x - _x.detach())).sum(), _chosen).eq(1).all()  # without the first sg
assert gradient(straight_through(_x, _chosen).sum(), _x).eq(1).all()

# %% [markdown]
# ## Measured, through an encoder
#
# Here is a whole small network: inputs u, an encoder x = tanh(u W), the lookup among 8 codewords, and a decoder x̂ V that rebuilds u, all in float64, so that finite differences are sharp.

# %%
inputs, weight = torch.randn(64, 4).double(), torch.randn(4, 2).double().requires_grad_()
codewords_2d = torch.randn(8, 2).double().requires_grad_()
decoder_weight = torch.randn(2, 4).double().requires_grad_()


def encode(weight):
    """What the encoder makes of the inputs: (64, 2)."""
    return torch.tanh(inputs @ weight)


def reconstruction_loss(quantized, decoder_weight):
    """Mean squared error of what the decoder rebuilds."""
    return F.mse_loss(quantized @ decoder_weight, inputs)


# %%
@torch.no_grad()
def finite_differences(function, tensor, step=1e-6):
    """The slope of function(tensor), a number, by each entry of the tensor."""
    moves = step * torch.eye(tensor.numel(), dtype=tensor.dtype).view(-1, *tensor.shape)
    changes = [function(tensor + move) - function(tensor - move) for move in moves]
    return torch.stack(changes).view_as(tensor) / (2 * step)


# %% [markdown]
# Two functions of the encoder's weight W are compared with what autograd says. The **true** loss looks the codewords up anew for every W. The **pretended** loss freezes the error x̂ − x where W is now, and takes x plus this error for x̂.

# %%
x = encode(weight)
chosen = lookup(x, codewords_2d)
frozen = (chosen - x).detach()
rebuilt_loss = reconstruction_loss(straight_through(x, chosen), decoder_weight)
by_weight = gradient(rebuilt_loss, weight)
truth = finite_differences(lambda w: reconstruction_loss(lookup(encode(w), codewords_2d), decoder_weight), weight)
pretence = finite_differences(lambda w: reconstruction_loss(encode(w) + frozen, decoder_weight), weight)
plots.gradient_check(by_weight, {"the loss as it is": truth, "the loss with the error frozen": pretence})

# %% tags=["claim"]
assert torch.all(truth == 0)
assert torch.allclose(by_weight, pretence, rtol=1e-5, atol=1e-8) and by_weight.norm() > 1e-3

# %% [markdown]
# With the error frozen, all slopes lie on the diagonal; those of the loss as it is lie at zero. So the exact statement is: **The straight-through gradient is the gradient of the loss in which every vector's error x̂ − x is kept constant.** The true gradient is zero, all of it.
#
# ### Is the pretence a good guide?
#
# For one vector and a small step it is plainly wrong, and above not one of 64 vectors crossed a border. In a large crowd some do. Move many numbers, spread evenly over a range, each by a little: most keep their codeword, and the few that cross a border jump far. How far does x̂ move on average, for a move of x? We take the slope of the straight line through 0 that fits jumps against moves best, Σ jump · move / Σ move².


# %%
def average_slope(crowd, codebook):
    """How far x̂ moves for a small move of x, on average over a crowd of vectors."""
    moves = 0.03 * torch.randn_like(crowd)
    jumps = lookup(crowd + moves, codebook) - lookup(crowd, codebook)
    return ((jumps * moves).sum() / moves.square().sum()).item()


half_widths = [0.4, 0.6, 1.0, 1.5, 2.0]
for a in half_widths:
    print(f"crowd from {-a} to {a}: slope {average_slope(a * (2 * torch.rand(300_000, 1) - 1), levels):.2f}")

# %% tags=["claim"]
for _a in half_widths:
    assert abs(average_slope(_a * (2 * torch.rand(300_000, 1) - 1), levels) - (_a > 0.5) / _a) < 0.08

# %% [markdown]
# Where the crowd reaches from −1 to 1 the slope is the 1 that straight-through pretends. Elsewhere it is more, less, or nothing. A move d takes a share d/width of the crowd over each border, so in theory the slope is the sum of the jumps within the crowd, divided by its width.

# %%
widgets.explore(lambda half_width: plots.moved_crowd(levels, half_width), half_width=half_widths)

# %% [markdown]
# A codebook in use is fitted to its crowd, and then the slope is tied to the distortion. Let the components of the vectors be independent Gaussians of variance σ², and let k-means have fitted the codebook, with a mean squared error D per component. Then the average slope is **1 − D/σ²**, by a lemma of Stein's (1981). We fit codebooks of K codewords in 1 and in 8 dimensions, with σ = 1, and measure.

# %%
sizes, fitted_slopes = [2, 4, 16, 64, 256], {}
for dim in (1, 8):
    fitted = [kmeans(torch.randn(25_000, dim), size).centroids for size in sizes]
    crowd = torch.randn(200_000, dim)
    fitted_slopes[f"dim {dim}, measured"] = [average_slope(crowd, c) for c in fitted]
    fitted_slopes[f"dim {dim}, 1 − D/σ²"] = [1 - F.mse_loss(lookup(crowd, c), crowd).item() for c in fitted]
spiral = data.toy("spiral", 20_000, seed=0)
spiral_slope = average_slope(spiral, kmeans(spiral, 64).centroids)
print(f"on a thin spiral, 64 codewords: slope {spiral_slope:.2f}")
plots.lines(sizes, fitted_slopes, xlabel="codebook size K", ylabel="average slope", log_x=True)

# %% tags=["claim"]
for _dim in (1, 8):
    for _seen, _theory in zip(
        fitted_slopes[f"dim {_dim}, measured"], fitted_slopes[f"dim {_dim}, 1 − D/σ²"], strict=True
    ):
        assert abs(_seen - _theory) < 0.06
assert abs(fitted_slopes["dim 1, 1 − D/σ²"][0] - 0.64) < 0.015 and fitted_slopes["dim 1, 1 − D/σ²"][2] > 0.985
assert abs(fitted_slopes["dim 8, 1 − D/σ²"][-1] - 0.67) < 0.02
assert 0.4 < spiral_slope < 0.6

# %% [markdown]
# The slope comes near 1 when the codebook is **fine**, its error small beside the spread of the vectors. In one dimension 16 codewords bring it to .99. In 8 dimensions 256 codewords, 1 bit for each component, bring it to about two thirds, and straight-through's 1 is half as much again. So on a Gaussian crowd the pretence has the right sign on average, and for fine codebooks the right size. On a thin spiral even 64 codewords give only about ½: moves across the curve hardly change x̂. The pretence is a bet, not a theorem.

# %% [markdown] tags=["doubters"]
# ### Why 1 − D/σ²
#
# Take one component, and write q for the lookup, p for the density of x. If the crowd moves by δ, the mean of x̂ becomes ∫ q(y) p(y − δ) dy. Its slope by δ can be taken on p, which is smooth, so the jumps of q do no harm: at δ = 0 it is −∫ q(y) p′(y) dy. For a Gaussian −p′(y) = p(y) y / σ², so the slope is E[q(x) x] / σ². That is Stein's lemma.
#
# After k-means every codeword is the mean of its cell, so x − q(x) is zero on average in every cell, and E[q(x) (x − q(x))] = 0. Hence E[q(x) x] = E[q(x)²], and D = E[(x − q(x))²] = E[x²] − E[q(x) x] = σ² − E[q(x) x]. Put in above, the slope is 1 − D/σ². In several dimensions the same holds for the mean over the components.
#
# For two codewords on the line D is 1 − 2/π, so the slope is 2/π = 0.64. To see the lemma at work where the codebook was *not* fitted:

# %% tags=["doubters"]
normal, unfitted = torch.randn(300_000, 2), torch.randn(16, 2)
by_lemma = (normal * lookup(normal, unfitted)).mean().item()
print(f"E[q(x) · x] {by_lemma:.2f}, measured slope {average_slope(normal, unfitted):.2f}")

# %% tags=["claim"]
assert abs(by_lemma - average_slope(normal, unfitted)) < 0.05

# %% [markdown]
# ## Who teaches the codebook?
#
# Does the reconstruction loss improve the codewords?

# %%
print("gradient by the codebook, with straight-through:", gradient(rebuilt_loss, codewords_2d))
true_slopes = finite_differences(
    lambda codebook: reconstruction_loss(lookup(encode(weight), codebook), decoder_weight), codewords_2d
)
print(f"norm of the true gradient, by finite differences: {true_slopes.norm():.3f}")

# %% tags=["claim"]
assert gradient(rebuilt_loss, codewords_2d) is None and true_slopes.norm() > 1e-3
_random, _away = torch.Generator().manual_seed(0), []
for _ in range(40):  # networks as ours: how often do the two gradients by a codeword point apart?
    _u, _w, _c, _v = (torch.randn(*size, generator=_random) for size in ((64, 4), (4, 2), (8, 2), (2, 4)))
    _x, _c = torch.tanh(_u @ _w), _c.requires_grad_()
    _chosen = lookup(_x, _c)
    _slopes = [gradient(loss, _c) for loss in (F.mse_loss(_chosen @ _v, _u), F.mse_loss(_chosen, _x))]
    _away.append(((_slopes[0] * _slopes[1]).sum(1) < 0)[_slopes[1].any(1)].float().mean())
assert 0.25 < sum(_away) / 40 < 0.55

# %% [markdown]
# None. Moving a codeword does change x̂, so the true gradient isn't zero; the sg around x̂ hides it. Without that sg it would arrive, and draw codewords where the decoder wants them: often away from the vectors that chose them. So the codebook gets a loss of its own (van den Oord et al. 2017, section 3.2).
#
# ### Two losses, one number
#
# The paper's equation 3 has three terms:
#
# $$L = \underbrace{\text{reconstruction}}_{\text{moves encoder, decoder}} + \underbrace{\|\mathrm{sg}[x] - \hat x\|^2}_{\text{codebook loss}} + \beta\,\underbrace{\|x - \mathrm{sg}[\hat x]\|^2}_{\text{commitment loss}}$$
#
# (The paper doesn't divide by the number of components; we do.)
#
# The **codebook loss** pulls a codeword towards the vectors that chose it. The **commitment loss** pulls the vectors towards their codeword, so that the encoder's output doesn't grow or wander about faster than the codewords can follow. Both losses are the same number, the distortion of notebook 01. They differ only in who is moved.
#
# **β**, the Greek letter beta, is a number that we choose: how strongly the vectors are pulled, when the codewords are pulled with strength 1. The paper takes 0.25.
#
# ### Exercise 3 · Implement · ★★☆ · 5 minutes
#
# Write the two losses, as *means* over all vectors and components. β comes in only when they are added, so leave it out here.


# %% tags=["exercise"]
def vq_losses(x, quantized):
    """The codebook loss and the commitment loss: (N, dim), (N, dim) -> two scalars."""
    ### BEGIN SOLUTION
    codebook_loss = (x.detach() - quantized).square().mean()
    commitment_loss = (x - quantized.detach()).square().mean()
    return codebook_loss, commitment_loss
    ### END SOLUTION


# %% [markdown] tags=["hint"]
# Both are the mean of a squared difference. In each, one of the two tensors must hold still: `detach` that one. The codebook loss moves codewords, so which tensor holds still in it?

# %%
check.vq_losses(vq_losses)

# %% [markdown]
# Now the table of who is moved by what. Nine gradients: three losses, each by the encoder's weight, the codebook and the decoder's weight. A number is the gradient's norm.

# %%
three_losses = {
    "reconstruction": rebuilt_loss,
    "codebook loss": F.mse_loss(chosen, x.detach()),
    "commitment loss": F.mse_loss(x, chosen.detach()),
}
tensors = {"encoder": weight, "codebook": codewords_2d, "decoder": decoder_weight}
nine = {name: [gradient(loss, tensor) for tensor in tensors.values()] for name, loss in three_losses.items()}

print(" " * 15, *(f"{name:>9}" for name in tensors))
for name, row in nine.items():
    print(f"{name:15}", *("     none" if slopes is None else f"{slopes.norm():9.4f}" for slopes in row))

# %% tags=["claim"]
_moved = [[slopes is not None for slopes in row] for row in nine.values()]
assert _moved == [[True, False, True], [False, True, False], [True, False, False]]

# %%
plots.loss_graph()

# %% [markdown]
# The codebook learns from its own loss alone, the encoder from two. Straight-through invents one of the nine entries, the reconstruction loss by the encoder, and hides one, the reconstruction loss by the codebook. The codebook loss and the commitment loss share out the true gradient of the distortion: one keeps its slope by the codewords, the other its slope by the encoder. No pretence is needed here: on a border between two cells both codewords are equally far, so the distance to the *nearest* codeword has no jump. Following the codebook loss downhill is what k-means does in notebook 01, in small steps.

# %% [markdown] tags=["doubters"]
# ### Are the other gradients true?
#
# Finite differences decide. The functions below look the nearest codewords up anew at every step; nothing in them is frozen.

# %% tags=["doubters"]
slopes_by_codebook = finite_differences(lambda c: F.mse_loss(encode(weight), lookup(encode(weight), c)), codewords_2d)
slopes_by_encoder = finite_differences(lambda w: F.mse_loss(encode(w), lookup(encode(w), codewords_2d)), weight)
slopes_by_decoder = finite_differences(lambda v: reconstruction_loss(chosen, v), decoder_weight)

assert torch.allclose(nine["codebook loss"][1], slopes_by_codebook, rtol=1e-5, atol=1e-8)
assert torch.allclose(nine["commitment loss"][0], slopes_by_encoder, rtol=1e-5, atol=1e-8)
assert torch.allclose(nine["reconstruction"][2], slopes_by_decoder, rtol=1e-5, atol=1e-8)

# %% [markdown]
# ## The layer
#
# Lookup, two losses, straight-through: that is a vector quantizer.


# %%
class Quantizer(nn.Module):
    """The nearest of K learned codewords in place of each row of x: (N, dim) -> (N, dim), indices (N,), loss."""

    def __init__(self, dim, codebook_size, beta=0.25):
        super().__init__()
        self.codebook = nn.Parameter(torch.randn(codebook_size, dim))
        self.beta = beta

    def forward(self, x):
        indices = nearest(x, self.codebook)
        chosen = self.codebook[indices]
        codebook_loss = F.mse_loss(chosen, x.detach())
        commitment_loss = F.mse_loss(x, chosen.detach())
        return straight_through(x, chosen), indices, codebook_loss + self.beta * commitment_loss


# %% [markdown]
# The package's `VectorQuantizer` is the same layer. Two of its settings belong to notebook 03. Here we choose the plain way: `codebook_update="gradient"`, the codebook learns by its loss, and `dead_code_threshold=0`, codewords that nobody uses are left alone. Its result is a named tuple, a `QuantizerOutput`. `from_pretrained` starts it from given codewords, here our layer's; then both must say the same.

# %%
ours = Quantizer(2, 16)
PLAIN = {"codebook_update": "gradient", "dead_code_threshold": 0}
theirs = VectorQuantizer.from_pretrained(ours.codebook, **PLAIN)

quantized, indices_of_ours, loss_of_ours = ours(points)
output = theirs(points)
print(*output._fields, sep=", ")
assert torch.equal(output.quantized, quantized) and torch.equal(output.indices, indices_of_ours)
assert torch.allclose(output.loss, loss_of_ours)

# %% tags=["claim"]
_gradients = []
for _layer in (ours, theirs):
    _x = points.clone().requires_grad_()
    _out = _layer(_x)
    _loss = _out.loss if _layer is theirs else _out[2]
    _total = _out[0].pow(3).sum() + _loss  # cubes: no two vectors are treated alike
    _gradients.append([gradient(_total, _x), gradient(_total, _layer.codebook)])
for _mine, _other in zip(*_gradients, strict=True):
    assert torch.allclose(_mine, _other, atol=1e-6)

# %% [markdown]
# ### What is wrong here? · The batch that shouts
#
# `F.mse_loss` takes a mean. Suppose that a quantizer sums instead, beside a reconstruction loss that is a mean. Below, the batch is repeated 1 to 16 times: the same vectors, so nothing about the task changes. Predict both curves.

# %% tags=["predict"]
copies = [1, 2, 4, 8, 16]
batches = [points.repeat(n, 1) for n in copies]
commitment = {
    reduction: [F.mse_loss(batch, lookup(batch, codebook), reduction=reduction).item() for batch in batches]
    for reduction in ("sum", "mean")
}
plots.lines(copies, commitment, xlabel="copies of the batch", ylabel="commitment loss", log_x=True)

# %% tags=["claim"]
assert all(abs(loss / commitment["mean"][0] - 1) < 1e-4 for loss in commitment["mean"])
assert all(abs(loss / (n * commitment["sum"][0]) - 1) < 1e-4 for loss, n in zip(commitment["sum"], copies, strict=True))

# %% [markdown]
# The sum grows with the batch. The reconstruction loss doesn't: whoever takes a batch 16 times as large has made the quantizer's losses 16 times as important. The slip exists the other way round too: pythae 0.1.2, a library of autoencoders, averages the quantizer's losses and sums the reconstruction error over the pixels, so the balance changes with the image's size.
#
# **The mend.** Means everywhere, in the quantizer over all that was quantized.
#
# ## Features of an image
#
# Images come as (B, C, H, W), channels second, and so does what an encoder makes of them, the **features**: say 64 channels at 8 × 8 places. At each place the 64 numbers are one vector. `channel_dim=1` says on which axis a vector lies.
#
# The plainest features are colours: 3 channels, and a vector at every pixel. With a palette from notebook 01 as its codebook, the layer does to a photo what `encode` and `decode` did there:

# %%
photo = data.photos().held_out["coffee"][:, ::4, ::4]
palette = VectorQuantizer.from_pretrained(kmeans(photo.flatten(1).T, 16).centroids, channel_dim=1, **PLAIN)
painted = palette(photo[None])  # indices (1, H, W), quantized (1, 3, H, W)
index_map = (painted.indices / 15).expand(3, -1, -1)  # 0 is black and 15 white
caption = "In the middle the indices, drawn as greys. Look at the cup: neighbouring colours may have any two indices."
titles = ["features (3, H, W)", "indices (H, W)", "quantized (3, H, W)"]
plots.photo_row(torch.stack([photo, index_map, painted.quantized[0].detach()]), titles, caption=caption)

# %% tags=["claim"]
_output = VectorQuantizer(64, 16, channel_dim=1, **PLAIN)(torch.randn(1, 64, 8, 8))
assert _output.quantized.shape == (1, 64, 8, 8) and _output.indices.shape == (1, 8, 8)

# %% [markdown]
# ### What is wrong here? · The classic snippet
#
# The following lines, in one wording or another, stand in tutorials. Read them closely and predict: what happens for features (1, 64, 8, 8)? And for (1, 8, 8, 8)?


# %%
def classic_snippet(features, codebook, beta=0.25):
    """(B, C, H, W), (K, C) -> the quantized features, (B, C, H, W), and the loss."""
    x = features.permute(0, 2, 3, 1)  # (B, H, W, C)
    quantized = codebook[nearest(x, codebook)]  # vectors lie on the last axis, so this is (B, H, W, C)
    quantized = quantized.permute(0, 3, 1, 2)  # (B, C, H, W)
    loss = (quantized - x.detach()).square().mean() + beta * (quantized.detach() - x).square().mean()
    return straight_through(features, quantized), loss


# %% tags=["predict"]
try:
    classic_snippet(torch.randn(1, 64, 8, 8), torch.randn(16, 64))
except RuntimeError as fault:
    print(f"(1, 64, 8, 8): {fault}")

eight = torch.randn(16, 8)
perfect = eight[torch.randint(16, (1, 8, 8))].permute(0, 3, 1, 2)  # every vector is a codeword
same, loss_of_nothing = classic_snippet(perfect, eight)
print(f"(1, 8, 8, 8): quantized without error: {torch.equal(same, perfect)}, loss {loss_of_nothing:.2f}")

# %% tags=["claim"]
assert torch.equal(same, perfect) and loss_of_nothing > 0.5

# %% [markdown]
# With 64 channels it crashes, and that is the lucky case. Where C = H = W it runs. Every vector *is* a codeword, so the loss should be 0. But it compares `quantized`, channels second, with `x`, channels last: one place's channels with another place's. Training pulls the codewords towards nonsense.
#
# ### Exercise 4 · Repair · ★★☆ · 6 minutes
#
# Mend it. Same arguments, same two results, both losses as means.


# %% tags=["exercise"]
def quantize_features(features, codebook, beta=0.25):
    """(B, C, H, W), (K, C) -> the quantized features, (B, C, H, W), and the loss."""
    ### BEGIN SOLUTION
    x = features.permute(0, 2, 3, 1)  # (B, H, W, C)
    chosen = codebook[nearest(x, codebook)]  # (B, H, W, C)
    loss = F.mse_loss(chosen, x.detach()) + beta * F.mse_loss(x, chosen.detach())
    return straight_through(features, chosen.permute(0, 3, 1, 2)), loss
    ### END SOLUTION


# %% [markdown] tags=["hint"]
# Two ways: take the losses while both tensors still have their channels last, or compare the permuted `quantized` with `features`. Don't be tempted by `reshape` in place of `permute`: it gives the right shape and mixes channels with places.

# %%
check.quantize_features(quantize_features)

# %% [markdown]
# ## β: who walks towards whom
#
# Back to the plane. An arrow at a codeword leads to the mean of its cell: there the codebook loss pulls it. An arrow at a vector is β times its way to the codeword: so strongly the commitment loss pulls it.
#
# Try a few sizes and β. A codeword's arrow doesn't depend on β. A codeword in whose cell no vector lies has no arrow, and stays where it is. And the more codewords, the shorter the vectors' arrows.

# %%
scattered = torch.randn(32, 2)
widgets.explore(
    lambda codebook_size, commitment_weight: plots.gradient_field(
        points[:300], scattered[:codebook_size], commitment_weight
    ),
    codebook_size=[2, 4, 8, 16, 32],
    commitment_weight=[0.0, 0.25, 1.0],
)

# %% tags=["claim"]
_errors = [F.mse_loss(lookup(points[:300], scattered[:size]), points[:300]).item() for size in (2, 8, 32)]
assert _errors[0] > _errors[1] > _errors[2]

# %% [markdown]
# Now let go. One vector at 0 and one codeword at 1, both free, both following their loss downhill until they meet. Where?


# %%
def right_loss(x, codeword, beta):
    """Codebook loss plus β times commitment loss."""
    return (codeword - x.detach()).square() + beta * (x - codeword.detach()).square()


def codeword_share(loss, beta, steps=200):
    """The share of the way between them that the codeword has gone when the two have met."""
    x, codeword = torch.zeros((), requires_grad=True), torch.ones((), requires_grad=True)
    optimizer = torch.optim.SGD([x, codeword], lr=0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        loss(x, codeword, beta).backward()
        optimizer.step()
    return 1 - codeword.item()


for beta in (0.0, 0.25, 1.0):
    print(f"β = {beta:.2f}: the codeword goes {codeword_share(right_loss, beta):.0%} of the way")

# %% [markdown]
# At β = 0 the codeword goes all the way; at β = 1 they meet in the middle. The larger β, the more of the way is the vector's.
#
# ### What is wrong here? · β on the wrong term
#
# taming-transformers, the code of a well-known image model (VQGAN) from which much was copied, weights the other loss. Everything trains, so nothing looks wrong. What do you expect at β = 0.25?


# %% tags=["predict"]
def wrong_loss(x, codeword, beta):
    """As in many copies: β times codebook loss, plus commitment loss."""
    return beta * (codeword - x.detach()).square() + (x - codeword.detach()).square()


right_share, wrong_share = codeword_share(right_loss, 0.25), codeword_share(wrong_loss, 0.25)
print(f"the codeword's share at β = 0.25: {right_share:.0%} with the paper's loss, {wrong_share:.0%} with the copy's")

# %% tags=["claim"]
assert abs(right_share - 0.8) < 0.001 and abs(wrong_share - 0.2) < 0.001
assert abs(codeword_share(right_loss, 0.0) - 1) < 0.001 and abs(codeword_share(right_loss, 1.0) - 0.5) < 0.001

# %% [markdown]
# With the paper's loss the codeword does most of the walking, with the copies' loss the vector. In taming-transformers the old way has stayed the default, for the sake of trained models, with a switch that mends it.
#
# **The mend.** β belongs to the term in which x moves: `x - codeword.detach()`.
#
# ### Exercise 5 · Explore · ★★★ · 8 minutes
#
# Which β makes the codeword go a given share of the way? Call `codeword_share(right_loss, beta)` for a few β, find the law, and turn it around.


# %% tags=["exercise"]
def beta_for(share):
    """The β at which the codeword goes this share of the way, 0 < share <= 1: a number -> a number."""
    ### BEGIN SOLUTION
    return 1 / share - 1
    ### END SOLUTION


# %% [markdown] tags=["hint"]
# In every step the codeword is pulled with some force, and x with β times that force. So when the codeword has gone 1, x has gone β. What share of 1 + β is that? Then solve for β.

# %%
check.beta_for(beta_for)

# %% [markdown]
# In a network a vector isn't free: it moves only as the encoder's weights let it, together with all others. The law tells how the two pulls compare, not where they end. The paper found its results much the same from β = 0.1 to 2 (section 3.2).
#
# ## Train it
#
# The layer alone, with 32 codewords: 300 batches of 64 points in the plane. Only the codebook learns. We keep it after every step, and hold out 1,000 others.

# %%
train, held_out = data.toy("spiral", 1000, seed=0), data.toy("spiral", 1000, seed=1)
layer = VectorQuantizer(2, 32, **PLAIN)
optimizer = torch.optim.Adam(layer.parameters(), lr=0.02)
path = [layer.codebook.detach().clone()]
for _ in interruptible(range(300)):
    optimizer.zero_grad()
    layer(train[torch.randint(len(train), (64,))]).loss.backward()
    optimizer.step()
    path.append(layer.codebook.detach().clone())
plots.codeword_paths(held_out, torch.stack(path))

# %% [markdown]
# Codewords that had points in their cells walked to them, and settled along the spiral. Others stand where they stood. We compare with k-means on the same points: once with 32 codewords, once with as many as the layer uses.

# %%
used = len(nearest(held_out, path[-1]).unique())
spiral_errors = {
    "the trained layer": F.mse_loss(lookup(held_out, path[-1]), held_out).item(),
    f"k-means with {used} codewords": F.mse_loss(lookup(held_out, kmeans(train, used).centroids), held_out).item(),
    "k-means with 32 codewords": F.mse_loss(lookup(held_out, kmeans(train, 32).centroids), held_out).item(),
}
for name, distortion in spiral_errors.items():
    print(f"{name:26} held-out mean squared error {distortion:.4f}")

# %% tags=["claim"]
_trained, _few, _full = spiral_errors.values()
assert (path[-1] == path[0]).all(1).any() and used < 28
assert _trained < F.mse_loss(lookup(held_out, path[0]), held_out) / 2
assert _full < 0.8 * _trained and 0.6 * _trained < _few < 1.6 * _trained

# %% [markdown]
# Training works: the layer does about as well as k-means does with as many codewords as the layer *uses*. The other codewords are lost. A codeword that no vector chooses gets no gradient, stays where no vector is, and is not chosen the next time either.
#
# ## Does the pretence pay?
#
# The points of two half circles in the plane are lifted to 16 dimensions by a random matrix, and noise is added. A linear encoder brings them to the plane, a quantizer with 16 codewords follows, and a linear decoder leads back. We train this network with straight-through, and with the decoder's gradient cut off at the lookup, as the true slope of zero would have it; each with commitment loss (β = 0.25) and without (β = 0).
#
# Six seeds, 3,200 steps each, take minutes, so they were measured beforehand. Errors are divided by the error of rebuilding every input as the mean input: 1 means that nothing was learned.

# %%
pretence_paid = measured.read("pretence")
print(pretence_paid)
ways = {name: list(by_seed.values()) for name, by_seed in pretence_paid.results.items()}
steps = pretence_paid.settings["checkpoints"]
plots.over_steps(steps, {"error on held-out inputs": ways}, ylabel="error / mean input's error", log=True)

# %% [markdown] tags=["doubters"]
# ### The network and its training
#
# `python tools/measure.py pretence` runs this very code, for every seed and way, and writes down what it returns.


# %% tags=["measured", "doubters"]
def lifted_moons(seed):
    """Inputs to train on and inputs held out, (1000, 16) each."""
    lift = torch.randn(2, 16) / 2**0.5
    return [data.toy("moons", 1000, s) @ lift + 0.3 * torch.randn(1000, 16) for s in (2 * seed, 2 * seed + 1)]


def rebuild(network, inputs, cut):
    """What the network makes of its inputs, and the quantizer's losses; cut: no gradient comes back to the lookup."""
    encoder, quantizer, decoder = network
    output = quantizer(encoder(inputs))
    return decoder(output.quantized.detach() if cut else output.quantized), output.loss


# %% tags=["measured", "doubters"]
def held_out_errors(seed, cut, beta, checkpoints):
    """Train; after some of the steps, the held-out squared error as a share of what the mean input alone would leave."""
    torch.manual_seed(seed)
    seen, unseen = lifted_moons(seed)
    plain = {"codebook_update": "gradient", "dead_code_threshold": 0}
    network = nn.ModuleList(
        [nn.Linear(16, 2), VectorQuantizer(2, 16, commitment_weight=beta, **plain), nn.Linear(2, 16)]
    )
    optimizer = torch.optim.Adam(network.parameters(), lr=0.02)
    errors = []
    for step in range(1, checkpoints[-1] + 1):
        batch = seen[torch.randint(len(seen), (64,))]
        rebuilt, loss = rebuild(network, batch, cut)
        optimizer.zero_grad()
        (F.mse_loss(rebuilt, batch) + loss).backward()
        optimizer.step()
        if step in checkpoints:
            left = F.mse_loss(rebuild(network, unseen, cut)[0], unseen) / F.mse_loss(
                seen.mean(0).expand(1000, -1), unseen
            )
            errors.append(left.item())
    return errors


# %% tags=["claim"]
_last = {name: torch.tensor(errors)[:, -1] for name, errors in ways.items()}
_from_100 = {name: torch.tensor(errors)[:, 1:] for name, errors in ways.items()}
assert pretence_paid.settings["checkpoints"][1] == 100 and pretence_paid.settings["checkpoints"][-1] == 3200
assert _last["straight-through"].mean() < 0.2 and _last["straight-through"].max() < 0.25
assert (_last["gradient cut"] > 0.95).all()
assert 0.35 < _last["gradient cut, β = 0"].mean() < 0.55
assert (_last["straight-through"] < _last["gradient cut, β = 0"]).all()
assert (_from_100["straight-through"] < _from_100["straight-through, β = 0"]).all()
assert held_out_errors(0, cut=False, beta=0.25, checkpoints=[200])[0] < 0.3
_seen, _ = lifted_moons(0)
_encoder, _layer = nn.Linear(16, 2), VectorQuantizer(2, 16, **PLAIN)
_optimizer = torch.optim.Adam([*_encoder.parameters(), *_layer.parameters()], lr=0.02)
_spreads = [_encoder(_seen).std(0).norm().item()]
for _ in range(800):  # with the gradient cut the decoder doesn't matter
    _optimizer.zero_grad()
    _layer(_encoder(_seen[torch.randint(len(_seen), (64,))])).loss.backward()
    _optimizer.step()
_spreads.append(_encoder(_seen).std(0).norm().item())
assert _spreads[1] < 0.1 * _spreads[0] and _encoder.weight.norm() < 0.1

# %% [markdown]
# With the pretended gradient and β = 0.25 the error falls below a quarter, for every seed. With the gradient cut, the commitment loss is all that the encoder hears, and it obeys by shrinking all outputs together, until they say nothing about the input. With the gradient cut and β = 0 the encoder stays as random as at the start; its outputs tell something, and clearly less.
#
# Straight-through at β = 0 learns too, but from step 100 on its mean stays behind. A likely reason: its gradient is taken at the codeword and used at x, and fits the worse the farther the two are apart. The commitment loss keeps them close.
#
# ## What we saw
#
# - The slope of a lookup is zero. Straight-through computes the gradient of the loss with every vector's error x̂ − x frozen. Over a Gaussian crowd with its own codebook the slope is 1 − D/σ², near the pretended 1 where the codebook is fine.
# - The codebook loss moves codewords alone and the commitment loss the encoder alone; both gradients are true.
# - Alone with its codeword, a vector goes β / (1 + β) of the way: 20 % at β = 0.25. With β on the wrong term it goes 80 %.
# - With the pretence an encoder learns; with the true gradient, zero, it doesn't.
#
# The layer is ready for a network, and a good part of its codewords stands idle, though every index pays for them in bits. So notebook 03 asks why codewords die, and how they come back to life.
#
# ## Self-test
#
# **1.** Someone computes finite differences of a VQ network's reconstruction loss by an encoder weight, finds 0, and concludes that the implementation of straight-through is broken. Right?
#
# <details><summary>Answer</summary>
#
# No. Finite differences measure the loss as it is, and its slope *is* zero. Straight-through's gradient is that of another function, in which each vector's error is frozen. To test the implementation, take finite differences of that one. "The step was too small" is no way out either: a larger step shows jumps, not a slope.
#
# </details>
#
# **2.** The codebook loss and the commitment loss always have the same value. Could one write (1 + β) · mse(x, x̂) without any detach?
#
# <details><summary>Answer</summary>
#
# The value would be the same, the gradients not: both codeword and encoder would be pulled with strength 1 + β. The two losses exist to give the two pulls different strengths. "The losses are equal, so nothing changes" confuses a function's value with its gradient.
#
# </details>
#
# **3.** At β = 0, does the encoder still learn?
#
# <details><summary>Answer</summary>
#
# Yes, from the reconstruction loss by straight-through; the last picture shows it. β = 0 only stops pulling its outputs to their codewords. What can go wrong then is that the outputs run ahead of the codewords, and errors grow; it isn't that the gradient vanishes.
#
# </details>
#
# **4.** Why does no gradient of any loss reach an unused codeword?
#
# <details><summary>Answer</summary>
#
# The losses contain only codewords that were chosen. One that is nearest to no vector appears nowhere, so its gradient is exactly zero. A larger learning rate doesn't help (any number times zero), and neither does a larger β, which doesn't act on codewords at all.
#
# </details>
#
# **5.** A colleague's quantizer runs without error on features (8, 32, 32, 32) and its loss doesn't fall. What do you look at first?
#
# <details><summary>Answer</summary>
#
# C = H = W = 32: a loss between a channels-first and a channels-last tensor would run. Make features out of codewords alone: the loss must be 0. The batch size doesn't matter here, and a learning rate can't mend a loss that compares the wrong numbers.
#
# </details>
#
# ## Where to read on
#
# - A. van den Oord, O. Vinyals, K. Kavukcuoglu, *Neural Discrete Representation Learning* (2017), arXiv:1711.00937. Lookup: eqs. 1 and 2. The loss: eq. 3 and section 3.2.
# - Y. Bengio, N. Léonard, A. Courville, *Estimating or Propagating Gradients Through Stochastic Neurons for Conditional Computation* (2013), arXiv:1308.3432: where straight-through is written down.
# - C. M. Stein, *Estimation of the Mean of a Multivariate Normal Distribution*, Annals of Statistics 9 (1981), 1135–1151: the lemma behind 1 − D/σ² is Lemma 1, in several dimensions Lemma 2.
# - M. Huh, B. Cheung, P. Agrawal, P. Isola, *Straightening Out the Straight-Through Estimator* (2023), arXiv:2305.08842: what it costs in vector-quantized networks, and remedies.
# - C. Fifty et al., *Restructuring Vector Quantization with the Rotation Trick* (2024), arXiv:2410.06424: another pretence, which turns the gradient with the vector.
#
# Next: `03_codebook_collapse`. Why do most codewords die?

# %% [markdown] tags=["kernel"]
# ## What you have solved
#
# ✓ stands at every exercise of the course that a check has accepted in this folder.

# %%
check.progress()
