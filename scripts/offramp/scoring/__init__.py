"""Who would leave: criteria, scores, policies, temperatures, fitted weights."""
