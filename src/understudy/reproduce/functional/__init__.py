"""What the reproduction of functional priors measures: a line, tables, two classes."""
