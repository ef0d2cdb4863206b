"""The maintained package of the paper's authors, at our sizes: a token a row."""

from __future__ import annotations

import contextlib
import os

from pfns.model.transformer import TableTransformer
from speed_of import BARS, INPUTS, SIZES, main

if __name__ == "__main__":
    with open(os.devnull, "w") as quiet, contextlib.redirect_stdout(quiet):
        network = TableTransformer(
            ninp=SIZES["width"],
            nhead=SIZES["heads"],
            nhid=SIZES["hidden"],
            nlayers=SIZES["depth"],
            decoder_dict={"standard": (None, BARS)},
            features_per_group=INPUTS,
            attention_between_features=False,
        ).eval()
    main("pfns", "6 layers of 192", lambda x, y: network(x, y))
