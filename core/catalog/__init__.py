"""Read and write the packaged catalog: the scans of whole libraries as JSON lines."""
