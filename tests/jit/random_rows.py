"""Random programs that run vmaps within vmaps, as the text of a function `f(X, Y, T, s)`.

    >>> print(program(6).splitlines()[0])
    def f(X, Y, T, s):

What comes in: a seed. What goes out: text that uses `ops`, `vmap`, `grad`, `Value`, the Values `W` and the array `D`. X
and Y are rows of two numbers, T has such rows for each row of X, and s is a number.
"""

import random

INNER = (
    *(("Y", "b[0]"), ("Y", "b[1]"), ("X", "b[1]"), ("D", "b[0]")),
    *(("a2", "b"), ("Z", "b"), ("a3", "b[0]"), ("a3", "b[1]")),
)


class Writer:
    """Text, by the choices of a random generator."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.names = ["a[0]", "a[1]"]

    def chance(self, share):
        return self.random.random() < share

    def expression(self, leaves, depth):
        """A number, of these."""
        if depth == 0 or self.chance(0.15):
            return self.random.choice([*leaves, f"{self.random.uniform(-1, 1):.2f}"])
        a, b = self.expression(leaves, depth - 1), self.expression(leaves, depth - 1)
        forms = (
            *(f"({a} {op} {b})" for op in "+-*"),
            f"ops.tanh({a})",
            f"ops.exp(ops.tanh({a}))",
            f"({a})**2",
            f"ops.where({a} > {b}, {a}, 2*{b})",
            f"ops.maximum({a}, {b})",
            f"({a}) / (2 + ops.abs({b}))",
        )
        return self.random.choice(forms)

    def inner(self):
        """A number of an outer row, by a vmap on inner ones."""
        rows, element = self.random.choice(INNER)
        leaves = [*self.names, element, "W[0]", "W[1]", "s"]
        e = self.expression(leaves, 3)
        forms = [
            f"ops.sum(vmap(lambda b: {e})({rows}))",
            f"ops.mean(vmap(lambda b: {e})({rows}))",
            f"ops.mean(vmap(lambda z, b: z * {element})(vmap(lambda b: {e})({rows}), {rows}))",
            f"ops.sum(vmap(lambda b: grad(lambda t: {self.expression([*leaves, 't'], 3)} + 0 * t)({element}))({rows}))",
        ]
        return self.random.choice(forms)

    def result(self):
        """What an outer row returns, and whether that is a number."""
        e, with_b = self.expression(self.names, 2), [*self.names, "b[0]", "b[1]"]
        numbers = (e, f"grad(lambda u: {self.expression([*self.names, 'u'], 3)} + u)(a[0])")
        others = (
            f"vmap(lambda b: {self.expression(with_b, 2)})(Y)",
            f"vmap(lambda b: [{self.expression([*self.names, 'b'], 2)}, b])(a2)",
            f"({e}, vmap(lambda b: {self.expression(with_b, 2)})(Y), a[0])",
            f"[{e}, t0]",
        )
        text = self.random.choice((*numbers, *others))
        return text, text in numbers

    def text(self):
        lines = [
            "def f(X, Y, T, s):",
            f"    Z = vmap(lambda y: {self.expression(['y[0]', 'y[1]', 'W[2]'], 2)})(Y)",
            "    def row(a, a2, a3):",
        ]
        for k in range(self.random.choice([1, 2])):
            lines.append(f"        t{k} = {self.inner()}")
            self.names.append(f"t{k}")
        result, is_number = self.result()
        options = self.random.choice(["", ", in_axes=(0, -2, -3)", ", threads=2"])
        lines += [f"        return {result}", f"    R = vmap(row{options})(X, X, T)"]
        if not is_number:
            return "\n".join([*lines, "    return R"])
        loss = self.random.choice(["ops.mean(vmap(lambda q: q * q)(R))", "ops.sum(R)"])
        lines += [f"    loss = {loss}", *(f"    W[{k}].grad = 0" for k in range(3))]
        lines += ["    if isinstance(loss, Value):", "        loss.backward()"]
        by = self.random.choice(["R", "grad(lambda X: ops.sum(vmap(row)(X, X, T)))(X)", "grad(lambda T: g(T))(T)"])
        if "g(T)" in by:
            lines.append("    g = lambda T: ops.mean(vmap(row)(X, X, T))")
        return "\n".join([*lines, f"    return loss, [w.grad for w in W], {by}"])


def program(seed):
    return Writer(seed).text()
