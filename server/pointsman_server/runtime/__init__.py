"""The runtime aggregator: how fast and how healthy every endpoint is at this very moment. Pure: time is passed in."""
