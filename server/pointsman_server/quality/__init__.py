"""What to expect of an LLM's answer to a prompt: features, the model, and the artifact it is loaded from."""
