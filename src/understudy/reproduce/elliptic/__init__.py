"""Parts of the reproduction of MgNO: pairs of elliptic equations, rivals, and equal times."""
