"""A scalar autograd engine that can be read in ten minutes, and a compiler behind one word, `jit`."""

__version__ = "0.1.0"
