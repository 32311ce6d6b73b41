"""The real server against simulated providers in real time, beside LiteLLM's proxy on the very same ones."""
