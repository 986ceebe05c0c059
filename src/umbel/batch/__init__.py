"""A batch job as it is asked for, by a command line or a Python call: options by name, the job that they make."""
