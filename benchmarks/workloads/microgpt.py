"""A training step of a GPT on one name: the whole of it, as examples/microgpt.py has it, with Adam's update.

The names are letters at random, from which nothing can be learned: so no gradient vanishes, however many steps are
timed, and no mean of squares becomes a subnormal number, which would be slow.
"""

import math
import random
import sys

from peers import synchronous
from timing import OURS, ROOT, Timed, Workload, compiled_within, first, within

CHANNELS, HEADS, CONTEXT, VOCABULARY = 16, 4, 16, 27
WIDTH = CHANNELS // HEADS
RATE, BETAS, EPSILON, STEPS = 0.01, (0.85, 0.99), 1e-8, 1_000_000
NAMES, LETTERS = 64, 7  # of 8 tokens the next one is to be told
STEPS_COMPARED = 10
SHAPES = {
    "tokens": (VOCABULARY, CHANNELS),
    "positions": (CONTEXT, CHANNELS),
    **dict.fromkeys(("query", "key", "value", "out"), (CHANNELS, CHANNELS)),
    "hidden": (4 * CHANNELS, CHANNELS),
    "back": (CHANNELS, 4 * CHANNELS),
    "head": (VOCABULARY, CHANNELS),
}
SIZE = sum(rows * columns for rows, columns in SHAPES.values())


def weights():
    """All numbers of the model, in the order of SHAPES."""
    gauss = random.Random(1).gauss
    return [gauss(0.0, 0.08) for _ in range(SIZE)]


def matrices(flat):
    """The matrices by name, as parts of a vector of numpy, torch or JAX."""
    found, begin = {}, 0
    for name, (rows, columns) in SHAPES.items():
        found[name] = flat[begin : begin + rows * columns].reshape(rows, columns)
        begin += rows * columns
    return found


def documents():
    """The tokens of all names, each between two ends."""
    letter, end = random.Random(2).randrange, VOCABULARY - 1
    return [[end, *(letter(end) for _ in range(LETTERS)), end] for _ in range(NAMES)]


def timed(step, names, compiled=math.nan, note=""):
    """A contender that takes a step on each of the names in turn."""
    answer = [float(step(*name)) for name in names[1:STEPS_COMPARED]]
    variables = {"step": step, "names": names}
    return Timed("[step(*name) for name in names]", variables, answer, NAMES, compiled, note)


def ours():
    from peers import jit_imported

    sys.path.insert(0, str(ROOT / "examples"))
    import microgpt

    jit = jit_imported()
    model = microgpt.GPT(CHANNELS, HEADS)
    for p, x in zip(model.parameters(), weights(), strict=True):
        p.data = x
    step = jit(microgpt.training_step(model, STEPS, RATE))
    names = [(tokens,) for tokens in documents()]
    _, seconds = first(lambda: step(*names[0]))
    return timed(step, names, seconds, step.explain())


# --- numpy, its gradient derived by hand


class Numpy:
    """The model as matrices, and Adam on all of its numbers at once."""

    def __init__(self):
        import numpy as np

        self.np = np
        self.p = np.array(weights(), "float32")
        self.g, self.m, self.v = (np.zeros_like(self.p) for _ in range(3))
        self.w, self.dw = matrices(self.p), matrices(self.g)
        self.mask = np.triu(np.full((CONTEXT, CONTEXT), -np.inf, "float32"), 1)
        self.taken = 0

    def norm(self, x):
        scale = ((x * x).mean(1, keepdims=True) + 1e-5) ** -0.5
        return x * scale, scale

    def norm_backward(self, dy, x, scale):
        return scale * dy - x * (scale**3 * (dy * x).sum(1, keepdims=True) / CHANNELS)

    def heads(self, x):
        """(tokens, channels) as (heads, tokens, width)."""
        return x.reshape(len(x), HEADS, WIDTH).transpose(1, 0, 2)

    def joined(self, x):
        return x.transpose(1, 0, 2).reshape(x.shape[1], CHANNELS)

    def gradient(self, tokens, targets):
        """The loss; the gradient is left in `g`."""
        np, w, dw, n = self.np, self.w, self.dw, len(tokens)
        e = w["tokens"][tokens] + w["positions"][:n]
        x0, s0 = self.norm(e)
        y, s1 = self.norm(x0)
        q, k, v = (self.heads(y @ w[name].T) for name in ("query", "key", "value"))
        a = q @ k.transpose(0, 2, 1) / WIDTH**0.5 + self.mask[:n, :n]
        a = np.exp(a - a.max(2, keepdims=True))
        a /= a.sum(2, keepdims=True)
        mixed = self.joined(a @ v)
        x1 = x0 + mixed @ w["out"].T
        z, s2 = self.norm(x1)
        r = np.maximum(z @ w["hidden"].T, 0)
        h = r * r
        x2 = x1 + h @ w["back"].T
        logits = x2 @ w["head"].T
        logits -= logits.max(1, keepdims=True)
        p = np.exp(logits)
        total = p.sum(1, keepdims=True)
        rows = np.arange(n)
        loss = (np.log(total[:, 0]) - logits[rows, targets]).mean()

        d = p / total
        d[rows, targets] -= 1
        d /= n
        np.matmul(d.T, x2, out=dw["head"])
        dx = d @ w["head"]
        np.matmul(dx.T, h, out=dw["back"])
        dr = dx @ w["back"] * (2 * r)
        np.matmul(dr.T, z, out=dw["hidden"])
        dx += self.norm_backward(dr @ w["hidden"], x1, s2)
        np.matmul(dx.T, mixed, out=dw["out"])
        dmixed = self.heads(dx @ w["out"])
        dv = self.joined(a.transpose(0, 2, 1) @ dmixed)
        da = dmixed @ v.transpose(0, 2, 1)
        da = a * (da - (da * a).sum(2, keepdims=True)) / WIDTH**0.5
        dq, dk = self.joined(da @ k), self.joined(da.transpose(0, 2, 1) @ q)
        dy = 0
        for name, part in (("query", dq), ("key", dk), ("value", dv)):
            np.matmul(part.T, y, out=dw[name])
            dy = dy + part @ w[name]
        dx += self.norm_backward(dy, x0, s1)
        dx = self.norm_backward(dx, e, s0)
        dw["positions"][:] = 0
        dw["positions"][:n] = dx
        dw["tokens"][:] = 0
        np.add.at(dw["tokens"], tokens, dx)
        return loss

    def step(self, tokens, targets):
        np, (beta1, beta2) = self.np, BETAS
        loss = self.gradient(tokens, targets)
        rate = RATE * (1 - self.taken / STEPS)
        self.taken += 1
        self.m *= beta1
        self.m += (1 - beta1) * self.g
        self.v *= beta2
        self.v += (1 - beta2) * self.g * self.g
        rate /= 1 - beta1**self.taken
        self.p -= rate * self.m / (np.sqrt(self.v) / (1 - beta2**self.taken) ** 0.5 + EPSILON)
        return loss


def numpy():
    import numpy as np

    model = Numpy()
    names = [(np.array(tokens[:-1]), np.array(tokens[1:])) for tokens in documents()]
    model.step(*names[0])
    return timed(model.step, names)


# --- torch and JAX


def torch():
    import torch
    from torch.nn.functional import cross_entropy

    torch.set_num_threads(1)
    flat = torch.tensor(weights(), requires_grad=True)  # one vector, which Adam is quickest with
    optimizer = torch.optim.Adam([flat], lr=RATE, betas=BETAS, eps=EPSILON, fused=True)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, STEPS)
    mask = torch.full((CONTEXT, CONTEXT), -torch.inf).triu(1)

    def norm(x):
        return x * torch.rsqrt((x * x).mean(1, keepdim=True) + 1e-5)

    def loss_of(tokens, targets):
        w, n = matrices(flat), len(tokens)
        x = norm(w["tokens"][tokens] + w["positions"][:n])
        y = norm(x)
        q, k, v = ((y @ w[name].T).view(n, HEADS, WIDTH).transpose(0, 1) for name in ("query", "key", "value"))
        a = torch.softmax(q @ k.transpose(1, 2) / WIDTH**0.5 + mask[:n, :n], 2)
        x = x + (a @ v).transpose(0, 1).reshape(n, CHANNELS) @ w["out"].T
        x = x + torch.relu(norm(x) @ w["hidden"].T).square() @ w["back"].T
        return cross_entropy(x @ w["head"].T, targets)

    def step(tokens, targets):
        loss = loss_of(tokens, targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        return loss.item()

    names = [(torch.tensor(tokens[:-1]), torch.tensor(tokens[1:])) for tokens in documents()]
    step(*names[0])
    return timed(step, names)


def jax_loss(flat, tokens, targets):
    import jax.numpy as jnp
    from jax.nn import relu, softmax

    def norm(x):
        return x * ((x * x).mean(1, keepdims=True) + 1e-5) ** -0.5

    w, n = matrices(flat), len(tokens)
    x = norm(w["tokens"][tokens] + w["positions"][:n])
    y = norm(x)
    q, k, v = ((y @ w[name].T).reshape(n, HEADS, WIDTH).transpose(1, 0, 2) for name in ("query", "key", "value"))
    a = q @ k.transpose(0, 2, 1) / WIDTH**0.5
    a = softmax(jnp.where(jnp.tri(n, dtype=bool), a, -jnp.inf), 2)
    x = x + (a @ v).transpose(1, 0, 2).reshape(n, CHANNELS) @ w["out"].T
    x = x + relu(norm(x) @ w["hidden"].T) ** 2 @ w["back"].T
    logits = x @ w["head"].T
    logits -= logits.max(1, keepdims=True)
    return (jnp.log(jnp.exp(logits).sum(1)) - logits[jnp.arange(n), targets]).mean()


def jax_adam(p, m, v, taken, tokens, targets):
    """The numbers after a step, and the loss before it."""
    import jax
    import jax.numpy as jnp

    beta1, beta2 = BETAS
    loss, g = jax.value_and_grad(jax_loss)(p, tokens, targets)
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g * g
    rate = RATE * (1 - taken / STEPS) / (1 - beta1 ** (taken + 1))
    p = p - rate * m / (jnp.sqrt(v) / jnp.sqrt(1 - beta2 ** (taken + 1)) + EPSILON)
    return (p, m, v, taken + 1), loss


def jax():
    import jax
    import jax.numpy as jnp

    compiled = jax.jit(jax_adam, donate_argnums=(0, 1, 2, 3))
    state = [(jnp.array(weights(), "float32"), jnp.zeros(SIZE), jnp.zeros(SIZE), jnp.array(0.0))]
    names = [(jnp.array(tokens[:-1]), jnp.array(tokens[1:])) for tokens in documents()]

    def step(tokens, targets):
        state[0], loss = compiled(*state[0], tokens, targets)
        return loss.block_until_ready()

    _, seconds = first(lambda: step(*names[0]))
    return timed(step, names, seconds)


WORKLOAD = Workload(
    title="Training step of a GPT on a name of 8 tokens, 16 channels, 4 heads, 1 layer, Adam (f32)",
    contenders={
        OURS: ours,
        "numpy, derived by hand": numpy,
        "PyTorch": torch,
        "JAX": jax,
        "JAX, synchronous": synchronous(jax),
    },
    goals=(within(15e-6), compiled_within(2.0)),
    tolerance=1e-3,
    note="The model is examples/microgpt.py, word for word: scalars, lists and loops of Python's.",
)
