"""The processes of a service: how many there are, what they log, and the connections that their descriptors allow."""
