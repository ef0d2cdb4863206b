"""What the reproduction of learned proximal networks measures, on numbers and on digits."""
