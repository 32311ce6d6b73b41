"""What a decision log can be asked: is every decision repeated, what would another router have given, does the quality
model still fit. Offline; docs/replay.md is the reader's version."""
