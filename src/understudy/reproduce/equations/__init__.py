"""What forecasts of equations are compared with."""
