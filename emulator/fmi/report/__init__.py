"""What a run is told as: tables and costs."""
