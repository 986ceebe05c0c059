"""Readers: one file per input format, all of them streams of `InputRow` in bounded memory."""
