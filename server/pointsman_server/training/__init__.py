"""Offline: labelled prompts in, quality artifact and its measurements out. Nothing here runs while serving."""
