"""What commands that leave MLflow runs share."""
