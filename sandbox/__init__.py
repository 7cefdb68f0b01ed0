"""sandbox *isolates*: it runs functions in worker processes within bounds of time and memory."""
