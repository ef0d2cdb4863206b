"""How small a network can be.

- :func:`compress_a_priori`: convolutions of one-way filters in the place of dense ones, before
  training; :func:`truncate` after it.
- :func:`rebuilt`: the same for an operator that was read from a file.
"""

from understudy.compress.a_priori import Compression, compress_a_priori, rebuilt, truncate

__all__ = ["Compression", "compress_a_priori", "rebuilt", "truncate"]
