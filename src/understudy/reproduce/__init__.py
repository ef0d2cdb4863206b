"""One module a system: the claim of its paper, measured."""
