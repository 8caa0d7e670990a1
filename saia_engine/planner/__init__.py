"""Pure decisions: `timeline` (when), `lifecycle` (what an observation means), `decide` (what to do) and its rules."""
