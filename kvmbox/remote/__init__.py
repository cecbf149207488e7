"""Device models at the far end of a channel: protocol, processes, proxies."""
