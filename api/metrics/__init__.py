"""What is measured in service, for Prometheus."""
