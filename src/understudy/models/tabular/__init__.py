"""Surrogates of tables: one file a member of the portfolio."""
