"""What the reproduction of critical networks draws, trains and measures."""
