"""Neural operators: networks that stand in for the solver of a differential equation."""
