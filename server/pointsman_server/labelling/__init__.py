"""Labels for the user's own prompts: asks the endpoints, scores the answers, writes what training reads."""
