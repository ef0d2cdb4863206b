"""Readers of tables and named data sets."""
