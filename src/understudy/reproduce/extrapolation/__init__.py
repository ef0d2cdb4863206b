"""Parts of the reproduction of LC-PFN: scores of forecasts, times, and selections of networks."""
