"""What it costs to be seen: traces and metrics, sent to a collector that is well, slow, frozen or dead."""
