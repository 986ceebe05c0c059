"""Umbel as other programs' models: plug-ins that they find by themselves."""
