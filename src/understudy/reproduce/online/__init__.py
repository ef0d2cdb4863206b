"""What the reproduction of online training is run on, and how."""
