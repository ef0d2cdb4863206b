"""Ground floor: the few contracts that everything speaks."""
