"""The pure heart: what is expected, what may be chosen, what is best, who is picked."""
