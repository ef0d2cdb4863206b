"""Parts of the reproduction of PROSE: what is trained, on what, and what it is compared with."""
