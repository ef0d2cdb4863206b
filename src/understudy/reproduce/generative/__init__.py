"""What the reproduction of generative operators is made of."""
