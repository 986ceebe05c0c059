"""Runners turn a Step into a StepResult."""
