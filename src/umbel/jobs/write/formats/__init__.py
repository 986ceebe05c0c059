"""The formats of output files, each told by the name of the file."""
