"""One visible loop, and what keeps it honest: checkpoints, guards, metrics."""
