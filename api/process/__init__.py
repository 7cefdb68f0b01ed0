"""The processes of a service: their number, their logs, and the connections that their descriptors allow."""
