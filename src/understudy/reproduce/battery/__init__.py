"""What the reproductions of networks of cells measure against."""
