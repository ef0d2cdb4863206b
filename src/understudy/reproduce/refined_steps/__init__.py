"""What the reproduction of PDE-Refiner is run on, how models are trained, and its claims."""
