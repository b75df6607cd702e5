"""The command line, its demo, and the functions that draw pictures."""
