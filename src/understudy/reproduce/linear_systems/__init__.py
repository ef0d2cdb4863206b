"""What the reproduction of learnt solvers of linear systems measures with."""
