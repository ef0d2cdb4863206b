"""From a solver, or a file of its runs, to a trained operator that has been checked."""
