"""The command line: one module a command, none with logic of its own."""
