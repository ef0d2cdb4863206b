"""Networks that learn a new task from its rows alone, in one forward pass."""
