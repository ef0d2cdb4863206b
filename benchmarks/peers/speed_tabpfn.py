"""TabPFN's network of version 2 at its own size: a token a pair of inputs, 12 layers of 192."""

from __future__ import annotations

from speed_of import BARS, main
from tabpfn.architectures import tabpfn_v2

if __name__ == "__main__":
    config = tabpfn_v2.TabPFNV2Config(max_num_classes=0, num_buckets=BARS)
    network = tabpfn_v2.get_architecture(config).eval()
    main("tabpfn", "v2, 12 layers of 192", lambda x, y: network(x.transpose(0, 1), y.T))
