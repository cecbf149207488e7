"""What a suite reports: verdicts in the formats of others, and pages for people."""
