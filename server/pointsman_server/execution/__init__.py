"""How a decision is carried out, as arithmetic: budgets, timeouts, who is next, what is worth a probe. Pure, time passed in."""
