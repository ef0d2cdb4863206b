"""Our network with random weights."""

from __future__ import annotations

from speed_of import BARS, CONTEXT, INPUTS, SIZES, main

from understudy.nn.in_context import Architecture, PFNTransformer

if __name__ == "__main__":
    network = PFNTransformer(Architecture(INPUTS, BARS, **SIZES)).eval()

    def answer(x, y):
        return network.answer(network.remember(x[:, :CONTEXT], y), x[:, CONTEXT:])

    main("understudy", "6 layers of 192", answer)
