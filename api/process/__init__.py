"""Run the processes of a service: their number, logs, metrics, and the connections that their descriptors allow."""
