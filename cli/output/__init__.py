"""Print results as JSON for programs and as tables for people."""
