"""Where the truth comes from: simulators."""
