"""Tapes of ordinary programs, made by running the engine on symbols, and a scalar evaluation to hold against."""

import functools
import math
import random

from micrograd import ops
from micrograd.engine import Value, topological
from micrograd.jit.tape import CODE, Symbol, Tape

EVALUATE = {
    **{name: getattr(ops, name) for name in (*ops.OF_ONE, "maximum", "minimum", "where")},
    "neg": lambda a: -a,
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": ops.divide,
    "pow": ops.power,
    "lt": lambda a, b: float(a < b),
    "le": lambda a, b: float(a <= b),
    "gt": lambda a, b: float(a > b),
    "ge": lambda a, b: float(a >= b),
    "eq": lambda a, b: float(a == b),
    "ne": lambda a, b: float(a != b),
}


def outputs_of(tape, inputs, weights):
    """The outputs of a tape, row by row, with the functions of micrograd.ops."""
    leaves = {"input": inputs, "weight": weights, "constant": tape.constants}
    results = []
    for op, operands in zip(tape.ops, tape.operands):
        if op in leaves:
            results.append(float(leaves[op][operands[0]]))
        else:
            results.append(float(EVALUATE[op](*[results[i] for i in operands])))
    return [results[i] for i in tape.outputs]


def sizes(tape):
    """How many inputs and weights a tape needs."""
    used = {"input": 0, "weight": 0}
    for op, operands in zip(tape.ops, tape.operands):
        if op in used:
            used[op] = max(used[op], operands[0] + 1)
    return used["input"], used["weight"]


class Program:
    """A tape in the making: leaves by number, outputs as they come."""

    def __init__(self):
        self.tape = Tape()
        self.inputs = self.weights = 0

    def x(self, *shape):
        """New inputs, in nested lists."""
        if shape:
            return [self.x(*shape[1:]) for _ in range(shape[0])]
        self.inputs += 1
        return Value(self.tape.input(self.inputs - 1))

    def w(self, *shape):
        """New weights, in nested lists."""
        if shape:
            return [self.w(*shape[1:]) for _ in range(shape[0])]
        self.weights += 1
        return Value(self.tape.weight(self.weights - 1))

    def give(self, *results):
        """Add outputs: Values, symbols or numbers, in nested lists or not."""
        for r in results:
            if isinstance(r, list):
                self.give(*r)
            else:
                self.tape.outputs.append(self.tape.index_of(r.data if isinstance(r, Value) else r))
        return self.tape

    def differentiate(self, result):
        """`backward()`, with the notes that the sweep of a trace makes."""
        order = topological(result)
        result.backward()
        tape = self.tape
        for v in [*reversed(order), *(leaf for y in order for leaf in y._prev if not leaf._prev)]:
            if isinstance(v.grad, Symbol) and tape.codes[v.grad.index] == CODE["add"] and isinstance(v.data, Symbol):
                tape.gradients.append((v.grad.index, v.data.index))


def flat(nested):
    return [v for part in nested for v in flat(part)] if isinstance(nested, list) else [nested]


def layer(p, nin, nout, activation):
    """Neurons as micrograd.nn has them: their weights, the bias last."""
    w = p.w(nout, nin + 1)

    def forward(x):
        out = [sum((wi * xi for wi, xi in zip(row, x)), row[-1]) for row in w]
        return [activation(z) for z in out] if activation else out

    forward.parameters = flat(w)
    return forward


def mlp(p, nin, nouts, activation=ops.relu):
    layers = [
        layer(p, a, b, activation if i < len(nouts) - 1 else None)
        for i, (a, b) in enumerate(zip([nin, *nouts[:-1]], nouts))
    ]

    def forward(x):
        for f in layers:
            x = f(x)
        return x

    forward.parameters = [v for f in layers for v in f.parameters]
    return forward


def sgd(p, loss, parameters, lr):
    p.differentiate(loss)
    return p.give(loss, [v.data - lr.data * v.grad for v in parameters])


def dense(rows=16, nouts=(8, 6), nin=4, activation=ops.relu):
    """A network on every row."""
    p = Program()
    model = mlp(p, nin, nouts, activation)
    return p.give([model(x) for x in p.x(rows, nin)])


def moons(rows=100, hidden=(16, 16)):
    """The demo's step: hinge loss, regularisation, SGD."""
    p = Program()
    model = mlp(p, 2, [*hidden, 1])
    X, y, lr = p.x(rows, 2), p.x(rows), p.x()
    scores = [model(x)[0] for x in X]
    data_loss = sum((1 - yi * s).relu() for yi, s in zip(y, scores)) * (1.0 / rows)
    total = data_loss + 1e-4 * sum(v * v for v in model.parameters)
    return sgd(p, total, model.parameters, lr)


def digits(rows=16, nin=64, nouts=(64, 32, 10)):
    """Softmax cross-entropy of one-hot targets, and SGD."""
    p = Program()
    model = mlp(p, nin, list(nouts))
    X, Y, lr = p.x(rows, nin), p.x(rows, nouts[-1]), p.x()
    loss = Value(0)
    for x, target in zip(X, Y):
        z = model(x)
        total = sum(v.exp() for v in z)
        loss = loss + (total.log() - sum(t * v for t, v in zip(target, z)))
    return sgd(p, loss * (1.0 / rows), model.parameters, lr)


def regression(rows=20, nin=3, nouts=(8, 4, 1)):
    """Squared error of a tanh network, and SGD."""
    p = Program()
    model = mlp(p, nin, list(nouts), ops.tanh)
    X, y, lr = p.x(rows, nin), p.x(rows), p.x()
    loss = sum((model(x)[0] - yi) ** 2 for x, yi in zip(X, y))
    return sgd(p, loss, model.parameters, lr)


def convolution(n=128, channels=4, k=5):
    p = Program()
    w, x, lr = p.w(channels, k), p.x(n), p.x()
    loss = Value(0)
    for c in range(channels):
        for i in range(n - k + 1):
            z = sum(w[c][j] * x[i + j] for j in range(k))
            loss = loss + z.tanh() ** 2
    return sgd(p, loss, flat(w), lr)


def convolution2d(n=12, channels=3, k=3):
    p = Program()
    w, x, lr = p.w(channels, k, k), p.x(n, n), p.x()
    out = [
        sum(w[c][a][b] * x[i + a][j + b] for a in range(k) for b in range(k)).tanh()
        for c in range(channels)
        for i in range(n - k + 1)
        for j in range(n - k + 1)
    ]
    return sgd(p, sum(v * v for v in out), flat(w), lr)


def convolutions(n=32, k=4):
    """Two in a row, so that gradients flow into the first one's ragged borders."""
    p = Program()
    u, v, x, lr = p.w(k), p.w(k), p.x(n), p.x()
    h = [sum(u[j] * x[i + j] for j in range(k)).tanh() for i in range(n - k + 1)]
    z = [sum(v[j] * h[i + j] for j in range(k)) for i in range(n - 2 * k + 2)]
    return sgd(p, sum(a * a for a in z), [*u, *v], lr)


def stencil(n=16, steps=2):
    """The heat equation on a square, and the gradient by where it began."""
    p = Program()
    k, start = p.w(), p.x(n, n)
    u = start
    for _ in range(steps):
        new = []
        for i in range(n):
            row = []
            for j in range(n):
                around = [(i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1)]
                near = [u[a][b] for a, b in around if 0 <= a < n and 0 <= b < n]
                row.append(u[i][j] + k * (sum(near) - len(near) * u[i][j]))
            new.append(row)
        u = new
    loss = sum(v * v for v in flat(u))
    p.differentiate(loss)
    return p.give(loss, k.grad, [v.grad for v in flat(start)])


def nbody(n=32):
    """The energy of every pair of bodies, and its gradient."""
    p = Program()
    x, m = p.x(n, 3), p.x(n)
    energy = Value(0)
    for i in range(n):
        for j in range(i + 1, n):
            r2 = Value(0)
            for d in range(3):
                dx = x[i][d] - x[j][d]
                r2 = r2 + dx * dx
            energy = energy + -(m[i] * m[j]) * (r2 + 0.01) ** -0.5
    p.differentiate(energy)
    return p.give(energy, [v.grad for v in flat(x)])


def lennard_jones(n=16):
    p = Program()
    x = p.x(n, 3)
    energy = Value(0)
    for i in range(n):
        for j in range(i):
            r2 = sum((a - b) ** 2 for a, b in zip(x[i], x[j]))
            inverse = 1 / (r2 * r2 * r2)
            energy = energy + 4 * (inverse * inverse - inverse)
    p.differentiate(energy)
    return p.give(energy, [v.grad for v in flat(x)])


def shared_weights(rows=16, n=8):
    """One layer used three times."""
    p = Program()
    f = layer(p, n, n, ops.tanh)
    X, lr = p.x(rows, n), p.x()
    loss = sum(v * v for x in X for v in f(f(f(x))))
    return sgd(p, loss, f.parameters, lr)


def permuted(rows=16, nin=6, nout=5):
    """A layer on rows in no order."""
    p = Program()
    f = layer(p, nin, nout, ops.relu)
    X = p.x(rows, nin)
    random.Random(1).shuffle(X)
    return p.give([f(x) for x in X])


def embedding(vocabulary=27, width=8, length=40):
    """Rows of a table picked by numbers that were known when it was traced."""
    p = Program()
    table, v, rng = p.w(vocabulary, width), p.w(width), random.Random(2)
    return p.give([sum(a * b for a, b in zip(table[rng.randrange(vocabulary)], v)).tanh() for _ in range(length)])


def elementwise(n=50):
    """The density of a normal distribution, and another formula."""
    p = Program()
    x, y, mean, deviation = p.x(n), p.x(n), p.w(), p.w()
    density = [(-0.5 * ((v - mean) / deviation) ** 2).exp() / (deviation * 2.5066282746310002) for v in x]
    return p.give(density, [ops.where(a > b, a.sqrt(), b.sigmoid()) for a, b in zip(x, y)])


def constants(n=12, k=6):
    """A matrix that is written into the program."""
    p = Program()
    x, rng = p.x(k), random.Random(3)
    matrix = [[rng.choice([0.0, 1.0, -1.0, 0.25]) for _ in range(k)] for _ in range(n)]
    return p.give([sum((a * v for a, v in zip(row, x)), float(i)) for i, row in enumerate(matrix)])


def lotka(steps=40):
    """Hunters and hunted, by the method of Runge and Kutta, and the gradient by the four rates."""
    p = Program()
    a, b, c, d = rates = p.w(4)
    x, y, h = p.x(), p.x(), p.x()

    def slope(x, y):
        return a * x - b * x * y, d * x * y - c * y

    for _ in range(steps):
        k1 = slope(x, y)
        k2 = slope(x + 0.5 * h * k1[0], y + 0.5 * h * k1[1])
        k3 = slope(x + 0.5 * h * k2[0], y + 0.5 * h * k2[1])
        k4 = slope(x + h * k3[0], y + h * k3[1])
        x = x + h / 6 * (k1[0] + 2 * k2[0] + 2 * k3[0] + k4[0])
        y = y + h / 6 * (k1[1] + 2 * k2[1] + 2 * k3[1] + k4[1])
    loss = x * x + y * y
    p.differentiate(loss)
    return p.give(loss, [v.grad for v in rates])


def rnn(steps=10, nin=4, hidden=6):
    """A recurrent network with a loss at every step, and SGD."""
    p = Program()
    cell, readout = layer(p, nin + hidden, hidden, ops.tanh), layer(p, hidden, 1, None)
    xs, ys, h, lr = p.x(steps, nin), p.x(steps), p.x(hidden), p.x()
    loss = Value(0)
    for x, y in zip(xs, ys):
        h = cell(x + h)
        loss = loss + (readout(h)[0] - y) ** 2
    return sgd(p, loss, [*cell.parameters, *readout.parameters], lr)


def gru(steps=8, nin=4, hidden=6):
    """A gated recurrent network with a loss at the end, and SGD."""
    p = Program()
    update, reset, new = (layer(p, nin + hidden, hidden, f) for f in (ops.sigmoid, ops.sigmoid, ops.tanh))
    xs, h, lr = p.x(steps, nin), p.x(hidden), p.x()
    for x in xs:
        z, r = update(x + h), reset(x + h)
        n = new(x + [a * b for a, b in zip(r, h)])
        h = [(1 - zj) * nj + zj * hj for zj, nj, hj in zip(z, n, h)]
    return sgd(p, sum(v * v for v in h), [*update.parameters, *reset.parameters, *new.parameters], lr)


def leapfrog(steps=10, n=5):
    """Bodies that attract each other, kick by kick."""
    p = Program()
    x, v, m, dt = p.x(n, 3), p.x(n, 3), p.x(n), p.x()
    for _ in range(steps):
        force = []
        for i in range(n):
            total = [Value(0)] * 3
            for j in range(n):
                if i != j:
                    d = [b - a for a, b in zip(x[i], x[j])]
                    factor = m[j] * (sum(e * e for e in d) + 0.1) ** -1.5
                    total = [t + factor * e for t, e in zip(total, d)]
            force.append(total)
        v = [[a + dt * f for a, f in zip(vi, fi)] for vi, fi in zip(v, force)]
        x = [[a + dt * b for a, b in zip(xi, vi)] for xi, vi in zip(x, v)]
    return p.give(x, v)


def descent(steps=6, rows=10, nin=3, hidden=4):
    """Several steps of gradient descent in one go."""
    p = Program()
    w, v, X, y, lr = p.w(hidden, nin + 1), p.w(hidden + 1), p.x(rows, nin), p.x(rows), p.x()
    parameters = [Value(a.data) for a in flat(w) + v]
    losses = []
    for _ in range(steps):
        loss = Value(0)
        rest = iter(parameters)
        u, o = [[next(rest) for _ in range(nin + 1)] for _ in range(hidden)], list(rest)
        for x, target in zip(X, y):
            h = [sum((a * b for a, b in zip(row, x)), row[-1]).tanh() for row in u]
            loss = loss + (sum((a * b for a, b in zip(o, h)), o[-1]) - target) ** 2
        p.differentiate(loss)
        losses.append(loss)
        parameters = [Value(a.data - lr.data * a.grad) for a in parameters]
    return p.give(losses, parameters)


def classifier(rows=8, nin=6, hidden=5, labels=4):
    """Softmax as it is written not to overflow, and cross-entropy of labels known when it was traced."""
    p = Program()
    model = mlp(p, nin, [hidden, labels], ops.tanh)
    X, lr = p.x(rows, nin), p.x()
    loss = Value(0)
    for i, x in enumerate(X):
        z = model(x)
        top = z[0]
        for v in z[1:]:
            top = ops.maximum(top, v)
        shifted = [v - top for v in z]
        loss = loss + sum(v.exp() for v in shifted).log() - shifted[i % labels]
    return sgd(p, loss * (1.0 / rows), model.parameters, lr)


def attention(length=6, width=4):
    """One head that looks at all positions up to its own, and the gradient."""
    p = Program()
    q, k, v = p.w(width, width), p.w(width, width), p.w(width, width)
    X = p.x(length, width)
    Q, K, V = ([[sum(a * b for a, b in zip(row, x)) for row in w] for x in X] for w in (q, k, v))
    loss = Value(0)
    for i in range(length):
        scores = [(sum(a * b for a, b in zip(Q[i], K[j])) * 0.5).exp() for j in range(i + 1)]
        total = sum(scores)
        out = [sum(s * V[j][d] for j, s in enumerate(scores)) / total for d in range(width)]
        loss = loss + sum(o * o for o in out)
    p.differentiate(loss)
    return p.give(loss, [w.grad for w in flat([q, k, v])])


def transformer(length=5, channels=4, heads=2, tokens=7):
    """A layer of a GPT over a few tokens, whose numbers are data, and the gradient of the cross-entropy."""
    p = Program()
    table, positions, final = p.w(tokens, channels), p.w(length, channels), p.w(tokens, channels)
    query, key, value = p.w(channels, channels), p.w(channels, channels), p.w(channels, channels)
    X, width = [v.data for v in p.x(length + 1)], channels // heads

    def dot(a, b):
        return ops.sum([x * y for x, y in zip(a, b)])

    def shifted(x):
        largest = functools.reduce(ops.maximum, [v.data for v in x], -math.inf)
        return [v - largest for v in x]

    keys, values, losses = [], [], []
    for i in range(length):
        x = [a + b for a, b in zip(ops.take(table, X[i]), positions[i])]
        scale = (dot(x, x) / channels + 1e-5) ** -0.5
        x = [v * scale for v in x]
        q, k, v = ([dot(row, x) for row in w] for w in (query, key, value))
        keys.append(k)
        values.append(v)
        for head in range(heads):
            own = range(head * width, (head + 1) * width)
            weights = [z.exp() for z in shifted([dot([q[c] for c in own], [k[c] for c in own]) for k in keys])]
            total = ops.sum(weights)
            for c in own:
                x[c] = x[c] + dot([w / total for w in weights], [v[c] for v in values])
        z = shifted([dot(row, x) for row in final])
        losses.append(ops.log(ops.sum([v.exp() for v in z])) - ops.take(z, X[i + 1]))
    loss = ops.mean(losses)
    loss.backward()
    return p.give(loss, [w.grad for w in flat([table, positions, final, query, key, value])])


def extremes(n=12, window=5):
    """The largest number of each window, the least of all, and the largest of ever more."""
    p = Program()
    X = [x.data for x in flat(p.x(n, n))]
    rows = [X[n * i : n * i + n] for i in range(n)]

    def largest(xs):
        return functools.reduce(ops.maximum, xs, -math.inf)

    pooled = [[largest(row[j : j + window]) for j in range(n - window + 1)] for row in rows]
    triangle = [largest(row[: i + 1]) * 2 for i, row in enumerate(rows)]
    return p.give(pooled, triangle, functools.reduce(ops.minimum, X), [ops.maximum(x, 0.5) for x in X])


def batch_norm(rows=12, width=5):
    """Every feature with its mean taken away and divided by its deviation, and the gradient."""
    p = Program()
    X, scale, shift = p.x(rows, width), p.w(width), p.w(width)
    columns = [[X[i][j] for i in range(rows)] for j in range(width)]
    means = [sum(c) / rows for c in columns]
    variances = [sum((v - m) ** 2 for v in c) / rows for c, m in zip(columns, means)]
    out = [
        [s * (v - m) / (variance + 1e-5) ** 0.5 + b for v, m, variance, s, b in zip(x, means, variances, scale, shift)]
        for x in X
    ]
    loss = sum(ops.relu(v) ** 2 for v in flat(out))
    p.differentiate(loss)
    return p.give(loss, [v.grad for v in [*scale, *shift, *flat(X)]])


def adam(rows=10, nin=4, nouts=(6, 1)):
    """One step of Adam."""
    p = Program()
    model = mlp(p, nin, list(nouts), ops.tanh)
    X, y, t, lr = p.x(rows, nin), p.x(rows), p.x(), p.x()
    many = len(model.parameters)
    m, v = p.x(many), p.x(many)
    loss = sum((model(x)[0] - target) ** 2 for x, target in zip(X, y)) * (1.0 / rows)
    p.differentiate(loss)
    out = []
    for i, w in enumerate(model.parameters):
        first = 0.9 * m[i].data + 0.1 * w.grad
        second = 0.999 * v[i].data + 0.001 * w.grad * w.grad
        corrected, spread = first / (1 - 0.9**t.data), second / (1 - 0.999**t.data)
        out.append([w.data - lr.data * corrected / (spread**0.5 + 1e-8), first, second])
    return p.give(loss, [[o[k] for o in out] for k in range(3)])


def single(nin=10, nouts=(30, 20, 10, 1)):
    """A network on one row."""
    p = Program()
    return p.give(mlp(p, nin, list(nouts))(p.x(nin)))


def product(n=40):
    p = Program()
    x = p.x(n)
    total = x[0]
    for v in x[1:]:
        total = total * v
    return p.give(total)


def horner(n=30):
    """A polynomial, innermost bracket first, and its slope."""
    p = Program()
    x, coefficients = p.x(), p.w(n)
    y = Value(0)
    for c in coefficients:
        y = y * x + c
    p.differentiate(y)
    return p.give(y, x.grad)


def cumulative(n=40):
    p = Program()
    x, sums = p.x(n), []
    total = Value(0)
    for v in x:
        total = total + v
        sums.append(total)
    return p.give(sums)


def fibonacci(n=40):
    """Each number from the last two."""
    p = Program()
    a, b, r = p.x(), p.x(), p.w()
    numbers = [a, b]
    for _ in range(n):
        a, b = b, r * (a + b).sin()
        numbers.append(b)
    return p.give(numbers)


def dag(n=2000, leaves=20, seed=0):
    """Random operations on random operands: nothing to be found."""
    p = Program()
    rng, values = random.Random(seed), [v.data for v in p.x(leaves)]
    for i in range(n):
        a, b = values[rng.randrange(max(0, len(values) - 300), len(values))], rng.choice(values)
        c = rng.choice([lambda a, b: a + b * 0.5, lambda a, b: a * b, lambda a, b: ops.tanh(a)])(a, b)
        values.append(ops.tanh(c) if i % 5 == 0 else c)
    return p.give(values[-20:])


ALL = {
    f.__name__: f
    for f in [
        dense,
        moons,
        digits,
        regression,
        convolution,
        convolution2d,
        convolutions,
        stencil,
        nbody,
        lennard_jones,
        shared_weights,
        permuted,
        embedding,
        elementwise,
        constants,
        classifier,
        attention,
        transformer,
        extremes,
        batch_norm,
        adam,
        single,
        lotka,
        rnn,
        gru,
        leapfrog,
        descent,
        product,
        horner,
        cumulative,
        fibonacci,
        dag,
    ]
}
