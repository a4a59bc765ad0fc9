"""FMI, the FaaS Message Interface: collectives between functions over direct connections."""
