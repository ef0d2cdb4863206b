"""Parts of the reproduction of compression for waves: runs, networks, training and its cost."""
