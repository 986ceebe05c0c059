"""Where the time of a run goes: spans and steps recorded, compared with the ceilings of the machine, shown."""
