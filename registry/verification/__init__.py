"""Verify target specs against scans: matching, findings, audit and drift."""
