"""What the reproductions of in-context networks measure against, and on."""
