"""What the operator's screen costs: squeue's rows through the real engine to the real `saia-tui` on a terminal."""
