"""Answers to output lines, and lines to the finished file in its place."""
